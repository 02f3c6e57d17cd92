"""How a collective operation ends when it does not succeed."""

from cluster.assignment import Member


class GroupAborted(Exception):
    """The group's generation was ended from outside while this process was in an operation, or before it."""


class PeerFault(GroupAborted):
    """A member sent what no healthy member sends. The message names it, its host and what was wrong.

    The group is over for whoever hears it, and stays in `ProcessGroup.fault`: the others are told by whoever forms the
    next one. A member that hangs or dies is no fault: whoever needs it waits until the group is aborted.

    Attributes:
        rank: the member's rank in the generation.
        what: it did wrong, as the end of a sentence.
    """

    def __init__(self, member: Member, what: str) -> None:
        super().__init__(f"rank {member.rank} (worker {member.worker} on host {member.host}) {what}")
        self.rank, self.what = member.rank, what
