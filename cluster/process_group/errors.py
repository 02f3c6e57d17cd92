"""How a collective operation ends when it does not succeed."""


class GroupAborted(Exception):
    """The group's generation was ended from outside while this process was in an operation, or before it."""


class PeerFault(Exception):
    """A member sent what no healthy member sends. The message names it, its host and what was wrong.

    A member that hangs or dies is no fault: whoever needs it waits until the group is aborted.

    Attributes:
        rank: the member's rank in the generation.
    """

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank
