"""From a trained run to small LiteRT models: converted, quantised, pruned, measured and gated."""
