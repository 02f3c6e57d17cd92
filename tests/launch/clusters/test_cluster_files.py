"""The files that bring a cluster up: what their tools check of them, and what we want of them."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.config import ClusterConfig
from cluster.tpu.startup_script import startup_script
from launch.config import load_config

ROOT = Path(__file__).parents[3]
CLUSTERS = ROOT / "launch" / "clusters"
RAY = ["gcp", "aws"]
SCRIPTS = [CLUSTERS / "slurm" / "phalanx.sbatch", CLUSTERS / "ssh" / "cluster.sh", CLUSTERS / "tpu" / "ray-node.sh"]
SHELLCHECK = shutil.which("shellcheck")


def ray_cluster(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTERS / "ray" / f"{name}.yaml").read_text())


def ray_job() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTERS / "kuberay" / "rayjob.yaml").read_text()))


@pytest.mark.parametrize("name", RAY)
def test_ray_accepts_the_cluster(name: str) -> None:
    ray = pytest.importorskip("ray.autoscaler._private.util")
    ray.validate_config(ray.prepare_config(ray_cluster(name)))


@pytest.mark.parametrize("name", RAY)
def test_only_the_training_nodes_can_be_taken_away(name: str) -> None:
    types = ray_cluster(name)["available_node_types"]
    spot = {kind for kind, node in types.items() if "spot" in str(node["node_config"]).lower()}
    assert ray_cluster(name)["head_node_type"] == "head" and spot == {"spot"}
    assert types["head"]["resources"] == {"CPU": 0}, "no worker lands on the head"
    assert types["spot"]["min_workers"] < types["spot"]["max_workers"] <= ray_cluster(name)["max_workers"]


@pytest.mark.parametrize("name", RAY)
def test_ray_asks_for_its_token_and_its_dashboard_stays_at_home(name: str) -> None:
    cluster = ray_cluster(name)
    starts = [
        line for key in cluster if key.endswith("start_ray_commands") for line in cluster[key] if " start " in line
    ]
    assert len(starts) == 2 and all(line.startswith("RAY_AUTH_MODE=token ") for line in starts)
    assert not any("--dashboard-host=0.0.0.0" in line for line in starts)
    assert any(path.endswith(".ray/auth_token") for path in cluster["file_mounts"])


def test_the_ray_job_is_of_the_documented_form() -> None:
    job = ray_job()[0]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP" and cluster["headGroupSpec"]["rayStartParams"]
    (group,) = cluster["workerGroupSpecs"]
    assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    # Snapshots need more than the 64 MB that a container has there.
    pod = group["template"]["spec"]
    (memory,) = [volume for volume in pod["volumes"] if "emptyDir" in volume]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert memory["emptyDir"]["medium"] == "Memory" and mounts["/dev/shm"] == memory["name"]


def test_a_slice_installs_what_a_run_of_its_own_does_and_the_ray_of_the_cluster() -> None:
    script = (CLUSTERS / "tpu" / "ray-node.sh").read_text()
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and f"ray=${{RAY_PACKAGE-ray=={pinned[1]}}}" in script

    def words(text: str) -> set[str]:
        lines = text.replace("\\\n", " ").splitlines()
        return {word for line in lines if "pip install" in line for word in line.split()}

    own = startup_script("", package="$package").replace("/opt/phalanx/bin/", "").replace("'$package'", '"$package"')
    assert words(script) - words(own) == {'"$ray"'} and words(own) <= words(script)


def test_the_ray_job_lets_nobody_else_in() -> None:
    (policy,) = [document for document in ray_job() if document["kind"] == "NetworkPolicy"]
    own = policy["spec"]["podSelector"]
    everything, dashboard = policy["spec"]["ingress"]
    assert everything == {"from": [{"podSelector": own}]}
    assert [port["port"] for port in dashboard["ports"]] == [8265]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_can_read_the_script(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    assert SHELLCHECK is not None
    subprocess.run([SHELLCHECK, str(script)], check=True)


def commands() -> list[str]:
    """Every `phalanx train` that a file of ours gives, as one line; those of the guides: tests/docs."""
    texts = [path.read_text() for path in CLUSTERS.rglob("*") if path.is_file()]
    # Lines that go on: after a backslash, in a comment too, or as YAML folds them.
    joined = [re.sub(r"\\?\n#? +(?='?[a-z]+\.)", " ", text) for text in texts]
    return [found for text in joined for found in re.findall(r"phalanx train configs/\S+[^\n`#]*", text)]


def test_every_command_names_settings_that_exist() -> None:
    found = commands()
    assert len(found) >= 3
    for command in found:
        _, _, config, *overrides = shlex.split(command)
        assert (ROOT / config).is_file(), command
        settings = [override for override in overrides if "=" in override]
        if "ray" not in ClusterConfig.model_fields:
            settings = [one for one in settings if not one.startswith(("cluster.kind=", "cluster.ray."))]
        load_config(ROOT / config, settings)


FAKE = """#!/bin/bash
echo "$(basename "$0") $*" >>"$CALLS"
case "$(basename "$0") $*" in
scontrol*) printf 'node-a\\nnode-b\\nnode-c\\n' ;;
*hostname*) echo 10.0.0.11 ;;
"ray start"*|srun*"ray start"*) test -s "$RAY_AUTH_TOKEN_PATH" && test "$RAY_AUTH_MODE" = token || exit 9
    # As the real one: it lasts as long as the cluster.
    exec sleep 60 ;;
phalanx*) exit "${PHALANX_EXIT:-0}" ;;
esac
"""


def run_batch(folder: Path, **environment: str) -> tuple[int, list[str]]:
    """Runs the batch script where its tools only write down what they were asked."""
    tools = folder / ".venv" / "bin"
    tools.mkdir(parents=True)
    for tool in ("srun", "scontrol", "ray", "phalanx"):
        (tools / tool).write_text(FAKE)
        (tools / tool).chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    job = {"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node-[a-c]", "SLURM_JOB_NUM_NODES": "3"}
    job |= {"SLURM_CPUS_PER_TASK": "8", "SLURM_SUBMIT_DIR": str(folder), "CALLS": str(calls)}
    done = subprocess.run(
        ["bash", str(SCRIPTS[0]), "configs/mnist.yaml", "run.name=x"],
        env=os.environ | job | environment,
        timeout=50,
        check=False,
    )
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.processes
def test_the_batch_script_starts_every_node_and_hands_on_how_the_run_ended(tmp_path: Path) -> None:
    code, calls = run_batch(tmp_path, PHALANX_EXIT="3")
    assert code == 3
    starts = [call for call in calls if "ray start" in call]
    assert len([call for call in starts if "--head" in call and "--nodelist=node-a" in call]) == 1
    assert len([call for call in starts if "--nodes=2" in call and "--exclude=node-a" in call]) == 1
    (training,) = [call for call in calls if call.startswith("phalanx")]
    *_, address = settings = training.split()
    assert settings[:4] == ["phalanx", "train", "configs/mnist.yaml", "run.name=x"]
    assert {"cluster.workers=3", "cluster.kind=ray", "strategy.name=multi_worker_mirrored"} < set(settings)
    assert address == "cluster.ray.address=10.0.0.11:20042"
    assert not list(tmp_path.glob(".ray-token*")), "the token goes with the job"


@pytest.mark.processes
def test_the_ssh_script_starts_the_head_first_and_passes_no_token_on_a_command_line(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("# the head first\nme@a 10.0.0.1\nme@b 10.0.0.2\n")
    # In place of ssh: writes down where it was sent what, and does nothing.
    fake = tmp_path / "ssh"
    fake.write_text(f'#!/bin/bash\necho "ARGS $*" >>{tmp_path}/calls\ncat >>{tmp_path}/calls\n')
    fake.chmod(0o755)
    environment = os.environ | {"HOME": str(tmp_path), "PHALANX_SSH": str(fake)}
    subprocess.run(["bash", str(SCRIPTS[1]), "start", str(hosts), "/srv/it's"], env=environment, check=True)
    token = (tmp_path / ".ray" / "auth_token").read_text()
    said = (tmp_path / "calls").read_text()
    assert re.fullmatch(r"[0-9a-f]{64}", token) and (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o77 == 0
    assert [line for line in said.splitlines() if line.startswith("ARGS")] == ["ARGS me@a bash -s", "ARGS me@b bash -s"]
    assert said.index("--head") < said.index("--address=10.0.0.1:6379") and said.count(token) == 2
    assert "cd /srv/it\\'s" in said and "RAY_AUTH_MODE=token" in said


@pytest.mark.parametrize(("text", "code"), [("", 2), ("a\n", 2), ("a 10.0.0.1 b\n", 2)])
def test_the_ssh_script_refuses_a_list_that_it_cannot_read(tmp_path: Path, text: str, code: int) -> None:
    (tmp_path / "hosts").write_text(text)
    environment = os.environ | {"PHALANX_SSH": "false"}
    done = subprocess.run(
        ["bash", str(SCRIPTS[1]), "start", str(tmp_path / "hosts")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code and len(done.stderr.splitlines()) == 1
