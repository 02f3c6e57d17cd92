"""The model zoo: plain functions that return a `keras.Model` ending in logits."""
