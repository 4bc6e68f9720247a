"""Find what in this machine, its disks and its workers would make runs fail or slow."""

from tilepipe.diagnosis.examine import doctor
from tilepipe.diagnosis.findings import Diagnosis, Finding

__all__ = ["Diagnosis", "Finding", "doctor"]
