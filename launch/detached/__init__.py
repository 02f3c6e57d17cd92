"""Runs that go on without a terminal: a keeper starts their launcher, and starts it again when it dies."""
