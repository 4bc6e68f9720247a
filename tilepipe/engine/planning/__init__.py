"""Making a plan, with measurements of image, model and machine."""
