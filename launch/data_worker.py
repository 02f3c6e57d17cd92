"""A process of a run's data service: it opens the data of the config and answers requests for blocks of batches.

python -m launch.data_worker RUN_FOLDER
"""

import os
import sys
import threading
import traceback
from pathlib import Path

from cluster.assignment import ErrorReport
from cluster.data_service.block import Block, Request
from cluster.data_service.server import BlockServer
from cluster.termination_notice import on_termination
from cluster.worker_link import WorkerLink
from launch.config import load_config
from launch.exit_code import ExitCode, explanation_of
from launch.quiet_start import import_tensorflow
from launch.service_key import service_key
from trainer.run_folder import RunFolder


def main() -> None:
    """Serves until somebody ends it, or the agent that started it is gone."""
    stopped = threading.Event()
    link = WorkerLink.from_environment(on_stop=lambda reason: stopped.set())
    on_termination(stopped.set)
    key = service_key()
    assert key is not None, "the launcher gives it to every process of the service"
    try:
        server = open_server(sys.argv[1], None, key, link.name, link.host_address)
    except BaseException as error:
        traceback.print_exc()
        link.failed(ErrorReport(type(error).__name__, explanation_of(error), "", 0, is_user_error=True))
        link.close()
        os._exit(ExitCode.FAILED)
    link.ready(server.address)
    stopped.wait()
    server.close()
    link.close()
    sys.stdout.flush()
    os._exit(ExitCode.DONE)


def open_server(run: str, folder: str | None, key: bytes, worker: str, host: str) -> BlockServer:
    """Opens the data of a run and listens.

    Args:
        run: the run folder.
        folder: where the launcher was started, which paths in the config may count from; None: this process is there.
        key: of the run's data service.
        worker: this service worker's name.
        host: the address to listen on.

    Raises:
        DataError: the data are not what the config says.
        OSError: the config cannot be read, or the address is not this machine's.
    """
    if folder is not None and Path(folder).is_dir():
        os.chdir(folder)
        # Of a process that Ray has started: a source of the user's own is imported from where the run was started.
        sys.path.insert(0, folder)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # the accelerators belong to the training
    config = load_config(RunFolder(run).config)
    import_tensorflow()
    from trainer.data.service import BlockAnswers

    answers = BlockAnswers.of(config.data, config.train.seed)

    def answer(request: Request) -> Block:
        return Block(*answers(request))

    return BlockServer(worker, host, key, answer)


if __name__ == "__main__":
    main()
