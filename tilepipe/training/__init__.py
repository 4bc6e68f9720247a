"""From images and labels to a model file."""
