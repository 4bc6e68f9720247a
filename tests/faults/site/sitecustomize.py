"""Installs the faults in worker processes, which are started afresh."""

import os

if os.environ.get("TILEPIPE_FAULT"):
    from tests.faults import hooks

    hooks.install()
