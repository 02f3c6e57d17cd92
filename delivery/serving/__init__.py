"""Serves SavedModels by TensorFlow Serving's own protocols, gRPC and REST, from one process."""
