"""The reference pages of the documentation, written from what the program itself reads: its settings, its commands."""
