"""Where the wall time of a run went: productive steps, waiting, failures. Adds up, to the last second."""
