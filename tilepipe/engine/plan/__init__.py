"""What a run does, decided before its first block. Pure: no torch, no Dask, no disk."""
