"""What a run keeps on disk: its folder, the ledger, what is done, where its outputs go."""
