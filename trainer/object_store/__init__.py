"""Reading at random from object stores: docs/design/object_stores.md. Nothing in here imports TensorFlow."""
