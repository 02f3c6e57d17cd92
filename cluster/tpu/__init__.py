"""TPU slices: asked for, waited for, watched and given back. Which cloud gives them is behind one interface."""
