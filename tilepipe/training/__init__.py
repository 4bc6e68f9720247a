"""From images and labels to a model file."""

# Before torch is loaded: how it allocates, and how its threads wait.
import tilepipe.engine.work.device  # noqa: F401
