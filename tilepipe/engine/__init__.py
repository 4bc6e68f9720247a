"""Planning, running, resuming and verifying."""
