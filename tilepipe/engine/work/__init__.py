"""Computing blocks on workers: read a window, run the model, write whole chunks."""
