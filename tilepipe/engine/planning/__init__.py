"""Making a plan: what is measured of image, model and machine."""
