"""What came of a run, and how long its parts took."""
