"""What a launcher that died has left in the hosts' memory, for the next one to go on from."""

import logging
from collections.abc import Callable
from typing import Any

from cluster.supervisor.commands import Form
from cluster.supervisor.events import SnapshotTaken
from cluster.supervisor.journal_replay import JournalError, is_start, take_over
from cluster.supervisor.records import from_record
from launch.host_memory import HostMemory
from trainer.checkpoint.store import CheckpointStore
from trainer.observe.journal import read_journal
from trainer.run_folder import RunFolder

_log = logging.getLogger(__name__)


def rule_for_left(folder: RunFolder) -> Callable[[int, int], bool]:
    """Tells whether the run may go on from a snapshot, given its generation and step, that is found in some memory.

    The journal says which generations there were and from where each went on, and so which snapshots are of a past that
    was given up: the supervisor is replayed up to its death and asked. Where a checkpoint is newer, none is taken. A
    run that has logged nothing takes any config, so it does not go on from anything.

    Args:
        folder: of the run, before its next supervisor begins to write its journal. The caller holds its lock.
    """
    if not folder.has_progress:
        return _none
    records = read_journal(folder.journal)
    try:
        supervisor = take_over(records).supervisor
    except JournalError as error:
        _log.warning("the snapshots in memory are not used: %s", error)
        return _none
    handed_on = _handed_on(records)
    newest_checkpoint = max(CheckpointStore(folder.checkpoints).steps(), default=-1)

    def may_restore(generation: int, step: int) -> bool:
        is_past = supervisor.may_restore(generation, step) or (generation, step) == handed_on
        return step > newest_checkpoint and is_past

    return may_restore


def _none(generation: int, step: int) -> bool:
    return False


def _handed_on(records: list[dict[str, Any]]) -> tuple[int, int] | None:
    """Generation and step of the snapshot that the newest generation was sent on from.

    Its launcher may have died before that generation said where it began.
    """
    told: dict[str, tuple[int, int]] = {}
    handed_on: tuple[int, int] | None = None
    for record in records:
        if is_start(record):
            told, handed_on = {}, None
            continue
        match from_record(record):
            case SnapshotTaken(host=host, generation=generation, step=step):
                told[host] = (generation, step)
            case Form(assignment=assignment):
                place = assignment.restore
                newest = told.get(place.host) if place else None
                handed_on = newest if place and newest and newest[1] == place.step else None
    return handed_on


def left_snapshots(memory: HostMemory, may_restore: Callable[[int, int], bool]) -> list[SnapshotTaken]:
    """The newest snapshot of each host in this machine's memory that the run may go on from.

    Args:
        memory: of the run on this machine; nobody writes there any more.
        may_restore: see `rule_for_left`.
    """
    left = []
    for host in memory.hosts():
        held = [SnapshotTaken(0.0, host, *one) for one in memory.held(host) if may_restore(*one)]
        left += held[-1:]
    return left
