"""One training step as pure functions of tensors; no file here knows which strategy runs them."""
