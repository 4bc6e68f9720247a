"""Networks, their files and their geometry."""
