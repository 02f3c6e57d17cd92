"""Collective operations between training processes: arrays over shared memory and sockets, added in a fixed order.

Knows nothing of TensorFlow, Ray or hosts' agents: a list of members and a generation's number are all that it is told.
"""

from cluster.process_group.endpoint import Endpoint
from cluster.process_group.errors import GroupAborted, PeerFault
from cluster.process_group.group import ProcessGroup
from cluster.process_group.reduction import Reduction

__all__ = ["Endpoint", "GroupAborted", "PeerFault", "ProcessGroup", "Reduction"]
