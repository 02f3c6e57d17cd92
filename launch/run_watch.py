"""Follows a run that is going on in its folder: where its time goes, for whoever asks meanwhile."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from launch.run_config import RunConfig
from trainer.goodput.account import Account
from trainer.goodput.reading import SUMMARY, charge, fill, read_account
from trainer.goodput.sentence import scalars, sentence
from trainer.goodput.supervised import Ledger
from trainer.observe.journal import Journal, next_generation
from trainer.observe.tail import Tail
from trainer.run_folder import RunFolder

if TYPE_CHECKING:
    from launch.metrics_server import MetricsServer

_log = logging.getLogger(__name__)
_SCALARS_EVERY_S = 15.0


class RunWatch:
    """The ledger of a supervised run, brought up to date from its journal and traces when somebody asks.

    It belongs to the process that supervises: all that was recorded before it is of earlier launches.

    Args:
        folder: of the run; the journal holds the record that this launch began with.
        clock: seconds since the epoch.

    Attributes:
        ledger: to be read under `lock`.
        lock: held while the ledger changes.
    """

    def __init__(self, folder: RunFolder, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self.ledger, self.lock = Ledger(), threading.Lock()
        self._journal = Tail(folder.journal)
        self._traces: dict[int, Tail] = {}
        # Spans that reach further than the journal does: events of quiet times are written late.
        self._early: list[tuple[int, dict]] = []
        fill(self.ledger, [record for record in self._journal.read() if "event" in record], self._spans())

    def refresh(self) -> None:
        """Takes in what the files have gained."""
        with self.lock:
            for record in self._journal.read():
                if record.get("event") != SUMMARY:
                    self.ledger.add(record)
            known = self.ledger.timeline.end or 0.0
            new = [(rank, span) for rank, spans in self._spans().items() for span in spans]
            waiting, self._early = [*self._early, *new], []
            for rank, span in waiting:
                if span.get("end", span["start"] + span["duration"]) > known:
                    self._early.append((rank, span))
                else:
                    charge(self.ledger, rank, [span])

    def account(self, until_now: bool = True) -> Account:
        """Where the time went until now, or until the last record."""
        self.refresh()
        with self.lock:
            return self.ledger.account(self._clock() if until_now else None)

    def _spans(self) -> dict[int, list[dict]]:
        for path in self._folder.traces.glob("*.jsonl"):
            if path.stem.isdigit():
                self._traces.setdefault(int(path.stem), Tail(path))
        found = {rank: tail.read() for rank, tail in self._traces.items()}
        return {
            rank: [span for span in spans if "start" in span and "duration" in span] for rank, spans in found.items()
        }


class Watching:
    """What is told of a supervised run while it goes on.

    Args:
        watch: knows the account.
        folder: of the run.
        tensorboard: whether TensorBoard is told, now and then and once more at the end, from a thread of its own.
        server: of the metrics; None where there is none.
    """

    def __init__(
        self, watch: RunWatch, folder: RunFolder, tensorboard: bool, server: "MetricsServer | None" = None
    ) -> None:
        self._watch, self._folder, self._server = watch, folder, server
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._write_scalars, name="goodput", daemon=True)
        if tensorboard:
            self._thread.start()

    def close(self, journal: Journal) -> str:
        """Ends it, and writes the account as the journal's last word.

        Returns:
            The account as a sentence for the person.
        """
        self._closed.set()
        if self._server is not None:
            self._server.close()
        if self._thread.is_alive():
            self._thread.join()
        return record_summary(journal, self._watch.account(until_now=False))

    def _write_scalars(self) -> None:
        from trainer.observe.scalar_file import ScalarFile  # importing it takes longer than starting a worker

        try:
            file = ScalarFile(self._folder.tensorboard / SUMMARY)
            is_last = False
            while not is_last:
                is_last = self._closed.wait(_SCALARS_EVERY_S)
                account = self._watch.account(until_now=not is_last)
                file.write(account.steps, scalars(account))
            file.close()
        except OSError as error:
            _log.warning("goodput is not written to TensorBoard any more: %s", error)


def start_watching(config: RunConfig, folder: RunFolder, announce: Callable[[str], object]) -> Watching:
    """Begins to tell of a supervised run; its launch is in the journal.

    A port that is taken does not keep a run from training, which may be resumed at night with nobody there.

    Args:
        config: of the run.
        folder: of the run.
        announce: gets a sentence about where the metrics are, if they are wanted.
    """
    watch, cluster = RunWatch(folder), config.cluster
    server = None
    if cluster.metrics_port is not None:
        from launch.metrics_server import MetricsServer
        from launch.run_metrics import RunMetrics

        try:
            server = MetricsServer(RunMetrics(watch, config, folder), cluster.metrics_address, cluster.metrics_port)
            announce(f"metrics at {server.url}")
        except OSError as error:
            announce(
                f"cluster.metrics_port={cluster.metrics_port} on {cluster.metrics_address} cannot be used "
                f"({error.strerror}): the run goes on without metrics; choose another port, or 0 for any that is free"
            )
    return Watching(watch, folder, config.observe.tensorboard, server)


def summarize(config: RunConfig, folder: RunFolder) -> str:
    """Writes where the time of a run without a supervisor went, when its process is about to end.

    Returns:
        The same as a sentence for the person.
    """
    from trainer.observe.scalar_file import ScalarFile

    account = read_account(folder.path)
    if config.observe.tensorboard:
        with contextlib.suppress(OSError):  # that the disk is full is said by whoever needs the space
            file = ScalarFile(folder.tensorboard / SUMMARY)
            file.write(account.steps, scalars(account))
            file.close()
    journal = Journal(folder.journal, next_generation(folder.journal) - 1)
    text = record_summary(journal, account)
    journal.close()
    return text


def record_summary(journal: Journal, account: Account) -> str:
    """Writes the account into the journal, and returns it as a sentence for the person."""
    journal.write(SUMMARY, **account.to_json())
    return sentence(account)
