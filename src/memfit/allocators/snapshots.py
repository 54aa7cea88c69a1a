"""torch.cuda.memory snapshots: read (``snapshot_reader``), and checked against every address in them (``snapshot_check``)."""

from __future__ import annotations

from memfit.allocators.snapshot_check import Mismatch, Mismatches, check_addresses
from memfit.allocators.snapshot_reader import Snapshot, read_snapshot, snapshots_of

__all__ = ["Mismatch", "Mismatches", "Snapshot", "check_addresses", "read_snapshot", "snapshots_of"]
