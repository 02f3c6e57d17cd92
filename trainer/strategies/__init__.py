"""One adapter per distribution: how a step is scheduled over devices, and how contributions are reduced."""
