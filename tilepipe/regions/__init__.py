"""Where an image is worth computing: tissue that is found, a mask image, polygons, as cells."""
