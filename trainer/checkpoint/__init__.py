"""The training state on durable storage: its file format, the folder that keeps it, the thread that writes it."""
