"""What stays for long is kept out of the garbage collector's way.

A request in JSON is thousands of small lists. While many are in flight they outlive the young generations, and Python
then looks through all that it holds, the libraries and the graphs of the models among it: two thirds of the time of a
REST request with 32 at a time, and all others wait meanwhile. What is set aside is not looked through.
"""

from __future__ import annotations

import gc


def set_aside() -> None:
    """Takes what is there now, say after loading a model, out of later collections."""
    gc.freeze()


def release_garbage() -> None:
    """Frees what nobody reaches any more, also of what was set aside; the rest stays aside. Takes a while."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
