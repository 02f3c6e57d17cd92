# docker build -t phalanx .
# docker build -t phalanx --build-arg EXTRAS=samples,tfds,ray .   for a Ray cluster, such as launch/clusters/kuberay/rayjob.yaml
# docker run --rm -v "$PWD/runs:/home/phalanx/runs" phalanx train configs/mnist.yaml
FROM python:3.11-slim

ARG EXTRAS=samples,tfds

RUN useradd --create-home phalanx
WORKDIR /home/phalanx

# Dependencies first, so that a change of the code does not install them again.
COPY setup.cfg pyproject.toml constraints.txt corpora.txt README.md LICENSE ./
RUN pip install --no-cache-dir --constraint constraints.txt setuptools wheel \
    && mkdir trainer cluster launch delivery \
    && pip install --no-cache-dir --no-build-isolation --constraint constraints.txt ".[${EXTRAS}]" \
    && pip install --no-cache-dir --no-build-isolation --no-deps --require-hashes --requirement corpora.txt

COPY trainer trainer
COPY cluster cluster
COPY launch launch
COPY delivery delivery
COPY configs configs
RUN pip install --no-cache-dir --no-build-isolation --no-deps . && chown -R phalanx /home/phalanx

USER phalanx
ENTRYPOINT ["phalanx"]
CMD ["--help"]
