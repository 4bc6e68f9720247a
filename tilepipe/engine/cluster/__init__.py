"""Dask: who the workers are, and a bounded number of tasks on their way to them."""
