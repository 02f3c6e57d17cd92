"""What a launcher that died has left in this machine's memory, for the next one to go on from."""

import logging

from cluster.supervisor.events import SnapshotTaken
from cluster.supervisor.journal_replay import JournalError, take_over
from launch.host_memory import HostMemory
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.run_folder import RunFolder
from trainer.snapshot.file import held_snapshots

_log = logging.getLogger(__name__)


def left_snapshots(folder: RunFolder, memory: HostMemory) -> list[SnapshotTaken]:
    """The newest snapshot of each host that the run may go on from; none where a checkpoint is newer.

    The journal says which generations there were and from where each went on, and so which snapshots are of a past that
    was given up: the supervisor is replayed up to its death and asked. A run that has logged nothing takes any config,
    so it does not go on from anything.

    Args:
        folder: of the run, before its next supervisor begins to write its journal. The caller holds its lock, so that
            nobody writes snapshots any more.
        memory: of the run on this machine.
    """
    hosts = memory.hosts()
    if not hosts or not folder.has_progress:
        return []
    try:
        supervisor = take_over(read_journal(folder.journal)).supervisor
    except JournalError as error:
        _log.warning("the snapshots in memory are not used: %s", error)
        return []
    newest_checkpoint = max(CheckpointStore(folder.checkpoints).steps(), default=-1)
    left = []
    for host in hosts:
        held = [
            SnapshotTaken(0.0, host, metadata["generation"], step)
            for step, metadata in held_snapshots(memory.snapshot(host))
            if step > newest_checkpoint and supervisor.may_restore(metadata.get("generation", -1), step)
        ]
        left += held[-1:]
    return left
