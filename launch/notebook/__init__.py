"""Runs from a notebook or a program: the same runs as those of `phalanx train`, as objects."""
