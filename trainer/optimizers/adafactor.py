"""Keras's Adafactor, with variables that can be saved by name."""

from __future__ import annotations

from collections.abc import Sequence

import keras


class Adafactor(keras.optimizers.Adafactor):
    """`keras.optimizers.Adafactor` gives the factors of all weights one path, "adafactor/kernel": here they differ.

    The update is unchanged.
    """

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        """Makes the slots and numbers their paths."""
        super().build(list(var_list))
        for number, variable in enumerate(self.variables[1:]):
            variable._path = f"{self.name}/{variable.name}_{number}"
