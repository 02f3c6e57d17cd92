"""What stays for long is kept out of the garbage collector's way.

A request in JSON is thousands of small lists. While many are in flight they outlive the young generations, and Python
then looks through all that it holds, the libraries and the graphs of the models among it: two thirds of the time of a
REST request with 32 at a time, and all others wait meanwhile. What is set aside is not looked through, and what is new
only when there is so much more of it than what one request is made of that most of that has gone by itself.
"""

from __future__ import annotations

import gc

_NEW = 50_000  # objects that others refer to, of which a JSON request of an image is 800; Python's own limit is 700


def set_aside() -> None:
    """Takes what is there now, say after loading a model, out of later collections, which become seldom."""
    gc.freeze()
    gc.set_threshold(_NEW, *gc.get_threshold()[1:])


def release_garbage() -> None:
    """Frees what nobody reaches any more, also of what was set aside; the rest stays aside. Takes a while."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
