"""The plan of a run, decided before its first block. Pure: no torch, no Dask, no disk."""
