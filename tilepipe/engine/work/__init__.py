"""What workers do: read a window, run the model, write whole chunks."""
