"""Blocks of input batches, read by processes beside the training: who serves them, who asks, and how many there are."""
