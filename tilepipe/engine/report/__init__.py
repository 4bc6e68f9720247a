"""The summary of a run: results, times, bottleneck."""
