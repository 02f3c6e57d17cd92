"""The supervisor on simulated machines: a whole run in milliseconds, the same one for the same seed."""
