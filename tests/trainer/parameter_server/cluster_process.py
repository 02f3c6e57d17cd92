"""A whole cluster, cheaply: servers for every role, and a coordinator that takes the steps of several trainings.

Its own processes, because a coordinator renames the devices of its process for good; forked, because importing
TensorFlow is most of what starting one costs. Its job is a JSON object on the command line, {"parameter_servers": P,
"workers": W, "trainings": {name: config}}; its answer, a line of JSON, is what each training did.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from cluster.parent_death import die_with_parent
from tests.trainer.sessions import losses, merged, small_config
from trainer.group import Group
from trainer.parameter_server.roles import Roles
from trainer.parameter_server.server import serve
from trainer.session import Session, build_session
from trainer.strategies.parameter_server import ParameterServer

STEPS, STEPS_PER_CALL = 12, 4
PATIENCE_S = 240.0


def main() -> None:
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    job = json.loads(sys.argv[1])
    group = Group(0, tuple(addresses(1 + job["parameter_servers"] + job["workers"])))
    roles = Roles(group.size, job["parameter_servers"])
    for rank in range(1, group.size):
        start_server(Group(rank, group.addresses), roles)

    found = {}
    for name, config in job["trainings"].items():
        own = {"name": "parameter_server", "parameter_servers": job["parameter_servers"]}
        session = build_session(small_config(**merged({"strategy": own}, config)), group)
        found[name] = outcome(session, losses(session, STEPS, STEPS_PER_CALL))
    print(json.dumps(found), flush=True)
    os._exit(0)


def outcome(session: Session, curve: list[float]) -> dict[str, Any]:
    """What a training did."""
    variables = session.state.variables
    state = {name: np.asarray(v.numpy(), np.float64) for name, v in variables.items()}
    evaluation = session.evaluator.measure() if session.evaluator else {}
    session.state.copy_home()
    home = [np.array_equal(v._value.numpy(), state[f"model/{v.path}"]) for v in session.model.variables]
    found = {"losses": curve, "evaluation": evaluation, "home": all(home)}
    found["state"] = {name: value.tolist() for name, value in state.items()}
    if isinstance(session.strategy, ParameterServer):
        found["pieces"] = {n: [p.device for p in v.pieces] for n, v in variables.items()}
        found["tables"] = [layer.name for layer in session.strategy._state.tables.values()]
    return found


def start_server(group: Group, roles: Roles) -> None:
    """In a process that ends with this one. TensorFlow must be imported, and must not have been used yet."""
    parent = os.getpid()
    if os.fork() == 0:
        die_with_parent(parent)
        serve(group, roles)
        os._exit(0)


def addresses(number: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    found = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return found


if __name__ == "__main__":
    main()
