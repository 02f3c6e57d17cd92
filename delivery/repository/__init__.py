"""The model repository: versions that never change, aliases that move in one step, and a log of who moved them."""
