"""Snapshots made by torch's released allocator (2.13, its own binary over a driver that only counts): every address."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.allocators.caching import CachingPolicy
from memfit.allocators.caching_settings import CachingSettings, SettingsError
from memfit.allocators.plain_pickle import load_plain
from memfit.allocators.snapshots import check_addresses, read_snapshot, snapshots_of
from memfit.errors import TraceError
from memfit.ir.requests import Action

FOLDER = Path(__file__).parent.parent / "data" / "snapshots"
NAMES = sorted(path.name.removesuffix(".pickle.gz") for path in FOLDER.glob("*.pickle.gz"))
MIB = 1 << 20


def test_all_kinds_of_runs_are_there() -> None:
    assert len(NAMES) >= 13


@pytest.mark.parametrize("name", NAMES)
def test_every_address_and_every_reserved_byte(name: str) -> None:
    (snapshot,) = read_snapshot(FOLDER / f"{name}.pickle.gz")
    found = check_addresses(snapshot)
    assert found.checked > 3000
    assert found.checked == np.count_nonzero(snapshot.requests.action[snapshot.prefix :] == Action.ALLOCATE)
    assert (found.differing, found.first, found.reserved_differs) == (0, None, None)


def loaded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = load_plain(FOLDER / f"{name}.pickle.gz")
    return found


def test_settings_and_device_come_along() -> None:
    (snapshot,) = snapshots_of(loaded("garbage-max-split"))
    assert snapshot.settings.max_split_size_mb == 128
    assert snapshot.settings.collects_garbage
    assert snapshot.device_bytes == loaded("garbage-max-split")["memfit"]["device_bytes"][0]


def test_a_moved_address_is_named() -> None:
    held = loaded("variable")
    entries = held["device_traces"][0]
    allocs = [number for number, entry in enumerate(entries) if entry["action"] == "alloc"]
    moved = allocs[-1]
    entries[moved] = {**entries[moved], "addr": entries[moved]["addr"] + 512}
    (snapshot,) = snapshots_of(held)
    found = check_addresses(snapshot)
    assert found.differing >= 1
    assert found.first is not None
    assert found.first.expected == found.first.got + 512
    assert found.first.event == int(np.flatnonzero(snapshot.requests.action == Action.ALLOCATE)[len(allocs) - 1])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("expandable", CachingSettings()), ("variable", CachingSettings(expandable_segments=True)),
        ("max-split", CachingSettings()), ("roundup", CachingSettings()),
        ("variable", CachingSettings(roundup_power2_divisions=2)), ("garbage", CachingSettings()),
    ],
)  # fmt: skip
def test_other_settings_do_not_pass(name: str, settings: CachingSettings) -> None:
    (snapshot,) = read_snapshot(FOLDER / f"{name}.pickle.gz")
    found = check_addresses(replace(snapshot, settings=settings))
    assert found.differing or found.reserved_differs is not None


@pytest.mark.parametrize("name", ["fixed", "variable", "expandable", "roundup", "streams"])
def test_the_policy_reserves_what_torch_reserved(name: str) -> None:
    """The same requests through the policy, with its own driver: torch's own reserved peak."""
    (snapshot,) = read_snapshot(FOLDER / f"{name}.pickle.gz")
    total = int(
        np.max(
            np.cumsum(np.where(np.isin(snapshot.driver.kind, (3, 5)), snapshot.driver.nbytes, -snapshot.driver.nbytes))
        )
    )
    found = CachingPolicy(snapshot.settings).replay(snapshot.requests, snapshot.device_bytes)
    assert (found.failed, found.peak_reserved) == (None, total)


def test_what_was_there_before_the_first_event() -> None:
    (whole,), (late,) = snapshots_of(loaded("variable")), snapshots_of(loaded("late"))
    events = len(late.requests) - late.prefix
    reserved = CachingPolicy().replay(whole.requests, series=True).series
    assert reserved is not None
    assert sum(segment.nbytes for segment in late.segments) == reserved.reserved[len(reserved.reserved) - events - 1]
    live = sum(int(n) for n in late.requests.nbytes[: late.prefix])
    assert live == reserved.live[len(reserved.live) - events - 1]


def test_older_snapshots_without_pools_and_addresses_of_blocks() -> None:
    held = loaded("variable")
    for entry in held["device_traces"][0]:
        del entry["pool_id"], entry["time_us"], entry["frames"]
    for segment in held["segments"]:
        del segment["segment_pool_id"], segment["is_expandable"]
        for block in segment["blocks"]:
            del block["address"]
    (snapshot,) = snapshots_of(held)
    assert check_addresses(snapshot).differing == 0


def test_other_entries_do_not_matter() -> None:
    held = loaded("fixed")
    held["device_traces"][0].insert(7, {"action": "snapshot", "addr": 0, "size": 5, "stream": 0, "pool_id": (0, 0)})
    held["device_traces"].append([])
    (snapshot,) = snapshots_of(held)
    assert check_addresses(snapshot).differing == 0


def test_an_allocation_that_failed_left_no_block() -> None:
    (snapshot,) = read_snapshot(FOLDER / "variable-short-of-memory.pickle.gz")
    entries = loaded("variable-short-of-memory")["device_traces"][0]
    assert entries[-1]["action"] == "oom"
    assert len(snapshot.requests) < len(entries)


@pytest.mark.parametrize(
    ("held", "why"),
    [
        ([], "no list 'device_traces'"),
        ({"segments": []}, "no list 'device_traces'"),
        ({"device_traces": [[]], "segments": []}, "holds no events"),
        ({"device_traces": [[{"size": 1}]], "segments": []}, "KeyError"),
        (
            {"device_traces": [[{"action": "alloc", "addr": "x", "size": 1}]], "segments": []},
            "no torch.cuda.memory snapshot",
        ),
        ({"device_traces": [[]], "segments": [{"address": 1}]}, "no torch.cuda.memory snapshot"),
        ({"device_traces": [7], "segments": []}, "no torch.cuda.memory snapshot"),
    ],
)
def test_what_is_no_snapshot_is_said_so(tmp_path: Path, held: Any, why: str) -> None:
    path = tmp_path / "other.pickle"
    path.write_bytes(pickle.dumps(held))
    with pytest.raises(TraceError, match=why):
        read_snapshot(path)


def test_unknown_settings_in_a_snapshot_are_named() -> None:
    held = loaded("fixed")
    held["allocator_settings"] = {"PYTORCH_ALLOC_CONF": "expandable_segments:maybe"}
    with pytest.raises(SettingsError, match="expandable_segments:maybe"):
        snapshots_of(held)


def test_reading_changes_nothing() -> None:
    held = loaded("streams")
    before = copy.deepcopy(held["device_traces"][0][:50])
    snapshots_of(held)
    assert held["device_traces"][0][:50] == before
