"""The commands of `phalanx`, one to a file."""
