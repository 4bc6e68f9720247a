"""Dask: connecting to workers, cluster files, the task pool."""
