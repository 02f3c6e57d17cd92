"""Which slices nobody needs, and what keeps a host from outliving its run."""

import subprocess

from cluster.tpu.orphans import orphans_of
from cluster.tpu.provider import Slice, State
from cluster.tpu.startup_script import startup_script


def made(name, state=State.READY, expires=2000, run="r"):
    labels = {"phalanx-run": run, "phalanx-expires": str(expires)} if run else {}
    return Slice(name, "z", state, labels=labels)


def test_those_past_their_time_or_dead_or_without_a_run_are_orphans():
    slices = [made("used"), made("late", expires=500), made("gone", State.PREEMPTED), made("other", run="over")]
    slices += [made("foreign", State.PREEMPTED, run=None), made("ending", State.DELETING, expires=500)]
    found = {orphan.slice.name: orphan.why for orphan in orphans_of(slices, 4100.0 - 3000, ["r"])}
    assert list(found) == ["late", "gone", "other"]
    assert found["late"] == "0.2 h past its max_run_hours"
    assert found["other"] == "its run over is over"
    assert [o.slice.name for o in orphans_of(slices, 1000.0)] == ["late", "gone"]


def test_a_startup_script_is_one_that_bash_takes():
    script = startup_script(
        "ray start --address=10.0.0.2:6379", expires=1e9, resource="projects/p/locations/z/nodes/n",
        package="phalanx==0.1.0", environment={"A": "it's"},
    )  # fmt: skip
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert script.index("phalanx-limit") < script.index("pip install") < script.index("ray start")
    assert "-lt 1000000000 ]" in script
    assert "tpu.googleapis.com/v2/projects/p/locations/z/nodes/n'" in script


def test_a_host_deletes_its_slice_when_its_time_is_over(tmp_path):
    """The script's own commands, with a curl that notes what it is asked and then has the slice gone."""
    curl = tmp_path / "curl"
    asked = tmp_path / "asked"
    curl.write_text(
        f'#!/bin/bash\necho "$@" >> {asked}\n'
        'if [[ "$*" == *metadata* ]]; then echo \'{"access_token":"T0","expires_in":1}\'; else kill $PPID; fi\n'
    )
    curl.chmod(0o755)
    script = startup_script("wait", expires=1, resource="projects/p/locations/z/nodes/n")
    script = script.replace("/var/log/phalanx-limit.log", str(tmp_path / "log"))
    subprocess.run(["bash", "-c", script], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, timeout=20, check=False)
    _, delete = asked.read_text().splitlines()
    assert (
        delete
        == "-s -X DELETE -H Authorization: Bearer T0 https://tpu.googleapis.com/v2/projects/p/locations/z/nodes/n"
    )
