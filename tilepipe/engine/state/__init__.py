"""The state of a run on disk: its folder, the ledger, its progress and its outputs."""
