"""Plan, run, resume, verify: the ledger, the Dask side, the device."""
