"""What happens inside one training process: data, models, the step, the loop, its checkpoints and its records.

`from trainer import train, Run` is the entry for notebooks and programs. A run has more to it than this package may
know (the lock of its folder, workers, the package at its end), so whoever wires all of that together registers both, as
entry points of the group `phalanx.trainer`. Nothing here imports them by name: docs/design/notebook.md.
"""

from typing import Any

_REGISTERED = ("train", "Run")


def __getattr__(name: str) -> Any:
    """What is registered, when somebody asks for it.

    Raises:
        ImportError: no installed package registers it.
    """
    if name not in _REGISTERED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import entry_points

    for entry in entry_points(group="phalanx.trainer", name=name):
        return entry.load()
    raise ImportError(f"trainer.{name} comes with the installed package: pip install -e . in the folder of setup.cfg")
