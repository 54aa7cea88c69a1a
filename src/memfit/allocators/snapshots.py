"""torch.cuda.memory snapshots as Requests, and the replay that checks itself against every address in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from memfit.allocators.caching_settings import CachingSettings
from memfit.errors import TraceError
from memfit.ir.requests import Requests


@dataclass(frozen=True)
class Snapshot:
    """One device of a snapshot. ``requests`` carry the real addresses; the first ``prefix`` of them were live before."""

    device: int
    requests: Requests
    settings: CachingSettings
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An allocation that the replay put elsewhere. ``event`` in the requests; ``rule``: what is likely at fault."""

    event: int
    expected: int
    got: int
    rule: str


@dataclass(frozen=True)
class Mismatches:
    """``checked`` addresses, of which ``differing`` differ; ``first``: the first of them, or None."""

    checked: int
    differing: int
    first: Mismatch | None


def read_snapshot(path: str | Path) -> tuple[Snapshot, ...]:
    """The devices of a snapshot pickle that hold events.

    Raises:
        TraceError: no snapshot, or a pickle that asks for a class or a global.
    """
    raise TraceError(str(path), "snapshots cannot be read yet")


def check_addresses(snapshot: Snapshot) -> Mismatches:
    """Replay a snapshot by torch's rules and compare every address."""
    raise TraceError("the snapshot", "snapshots cannot be checked yet")
