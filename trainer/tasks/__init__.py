"""What a batch means: which inputs the model gets, the loss, the exact metrics and the outputs to serve."""
