"""Releases: gates that a version passes before an alias moves to it."""
