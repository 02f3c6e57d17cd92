"""Where samples come from and in which order: sources, the stateless sample order and the tf.data pipeline."""
