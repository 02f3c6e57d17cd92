"""What decides: a deterministic state machine, events in and commands out, without I/O, clock or randomness."""
