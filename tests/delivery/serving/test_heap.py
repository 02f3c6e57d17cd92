import gc
import weakref

from delivery.serving.heap import release_garbage, set_aside


class Graph:
    """A cycle, as graphs are full of them."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_set_aside_is_not_looked_through_and_yet_freed_when_a_version_goes():
    threshold = gc.get_threshold()
    try:
        graph = Graph()
        found = weakref.ref(graph)
        set_aside()
        assert gc.get_threshold()[0] > threshold[0]
        looked_at = len(gc.get_objects())
        assert gc.get_freeze_count() > looked_at
        del graph
        gc.collect()
        assert found() is not None
        release_garbage()
        assert found() is None and gc.get_freeze_count() > looked_at
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
