"""The mask: its zarr array and pyramid, and one file for each format it is exported to."""
