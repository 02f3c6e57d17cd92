"""One worker of a training, as a process: its job is a JSON object on the command line.

It tells each phase with its step, each snapshot, and at the end its outcome, as lines on a pipe.
"""

import json
import os
import sys
import traceback
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> None:
    from launch.quiet_start import import_tensorflow

    import_tensorflow()
    from tests.trainer.sessions import small_config
    from trainer.group import Group
    from trainer.parameter_server.roles import Roles
    from trainer.parameter_server.server import is_server, serve
    from trainer.rehearsal import rehearse
    from trainer.run_folder import RunFolder
    from trainer.snapshot.file import read_snapshot
    from trainer.snapshot.taker import SnapshotPlan
    from trainer.stop_request import StopRequest
    from trainer.training import run_training

    job = json.loads(sys.argv[1])
    stop = StopRequest()

    def tell(*words: object) -> None:
        os.write(job["pipe"], f"{' '.join(map(str, words))}\n".encode())

    def on_progress(step: int, phase: str) -> None:
        tell(phase, step)
        if job["stop_at"] is not None and step >= job["stop_at"]:
            stop.request("SIGTERM")

    config = small_config(**job["config"])
    group = Group(job["rank"], tuple(job["addresses"]), job["generation"])
    if is_server(config.strategy, group):
        serve(group, Roles(group.size, config.strategy.parameter_servers), on_progress)
        tell("outcome", "{}")
        return
    if job["rehearses"]:
        rehearse(config, group.size)
    outcome = run_training(
        config,
        RunFolder(Path(job["folder"])),
        stop,
        group,
        restore=read_snapshot(Path(job["restore"])) if job["restore"] else None,
        snapshots=SnapshotPlan(Path(job["snapshot"]), job["snapshot_every"]) if job["snapshot"] else None,
        on_progress=on_progress,
        on_snapshot=lambda step: tell("snapshot", step),
        on_checkpoint=lambda step: tell("durable", step),
    )
    tell("outcome", json.dumps({"stopped": outcome.stopped, "step": outcome.step, "metrics": outcome.metrics}))


if __name__ == "__main__":
    code = 0
    try:
        main()
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # TensorFlow's collectives can hold up an ordinary end for many seconds
