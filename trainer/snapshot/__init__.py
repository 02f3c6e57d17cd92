"""The training state in a host's memory, which outlives the process that wrote it."""
