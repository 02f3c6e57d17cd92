"""The sections of a training config, as pydantic models. Nothing here imports TensorFlow."""
