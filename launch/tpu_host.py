"""The agent on the first host of a slice, started at its boot and again whenever it has ended.

python -m launch.tpu_host RUN_FOLDER [SLICE]

SLICE is the name of a slice of several hosts, which the worker reaches by that name.
"""

import os
import signal
import sys
import threading

from cluster.mutual_proof import ProofFailed
from cluster.remote_agent import RemoteAgent
from cluster.reserved_port import own_address, split_address
from cluster.shared_folder import answer_probe
from cluster.worker_environment import Share, on_slice
from launch.exit_code import ExitCode
from launch.host_memory import HostMemory
from launch.hosts import program_on
from launch.tpu_run import HostPlan
from trainer.run_folder import RunFolder


def main() -> int:
    """Serves the run whose folder this is, until its launcher is gone or needs this host no longer."""
    folder, slice = RunFolder(sys.argv[1]), next(iter(sys.argv[2:]), None)
    plan = HostPlan.read(folder.path)
    if plan is None:
        print(f"no launcher waits for hosts in {folder.path}", file=sys.stderr)
        return ExitCode.NO_RESOURCES
    memory = HostMemory(folder.path, plan.host)
    try:
        answer_probe(folder.path, plan.probe, plan.host)
        memory.create()
        agent = RemoteAgent(
            plan.launcher,
            plan.secret,
            plan.host,
            on_slice(program_on(str(folder.path), plan.folder, plan.key, plan.host), slice),
            folder.logs,
            shares=[Share(os.cpu_count() or 1, ())],
            address=own_address(split_address(plan.launcher)[0]),
            folder=memory.folder,
        )
    except (ValueError, OSError, ProofFailed) as error:
        print(f"{plan.host} cannot serve this run: {error}", file=sys.stderr)
        return ExitCode.FAILED
    # A host that is taken away is shut down, which begins with this signal.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=agent.drain, args=(plan.notice_s,)).start())
    agent.wait()
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
