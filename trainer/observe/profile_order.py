"""The wish to see the next steps of a training that is going on. It needs no TensorFlow."""


class ProfileOrder:
    """Left by one thread, taken by the one that trains.

    >>> order = ProfileOrder()
    >>> order.give(20)
    >>> order.take(), order.take()
    (20, None)
    """

    def __init__(self) -> None:
        self._steps: int | None = None

    def give(self, steps: int) -> None:
        """Orders the next so many steps, from any thread; the newest order counts."""
        self._steps = steps

    def take(self) -> int | None:
        """How many steps are ordered, once; None: nobody asked."""
        steps, self._steps = self._steps, None
        return steps
