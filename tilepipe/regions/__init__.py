"""Where an image is computed: detected tissue, a mask image or polygons, as cells."""
