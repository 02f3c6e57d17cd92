"""The package in which a model leaves: what is in it, who vouches for it, and whether it may be loaded."""
