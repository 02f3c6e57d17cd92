"""Whether what a model is asked, and what it answers, still looks like its training data."""
