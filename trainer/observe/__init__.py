"""What a run shows of itself: metrics, journal, trace spans, live line, TensorBoard, profile."""
