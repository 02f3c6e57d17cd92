"""Where training processes live: their identity, their locks and, later, the machines that carry them."""
