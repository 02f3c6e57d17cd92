"""Published figures, each reproducible with one command."""
