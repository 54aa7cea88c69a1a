"""PYTORCH_ALLOC_CONF strings: read, printed, refused, and judged as torch itself judges them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memfit.allocators.caching_settings import CachingSettings, SettingsError, parse_settings

POWERS = st.sampled_from([2, 4, 8, 16, 64])
LARGE = st.integers(11, 300)


@st.composite
def settings_(draw: st.DrawFn) -> CachingSettings:
    large = draw(LARGE)
    return CachingSettings(
        draw(st.booleans()),
        draw(st.none() | st.integers(large, 5000)),
        draw(st.none() | st.integers(large, 5000)),
        draw(st.just(0) | POWERS | st.lists(st.just(0) | POWERS, min_size=16, max_size=16).map(tuple)),
        draw(st.just(0.0) | st.sampled_from([0.25, 0.8])),
        large,
        draw(st.none() | st.sampled_from([0.5, 1.0])),
        draw(st.just(()) | st.just((("pinned_num_register_threads", "4"), ("backend", "native")))),
    )


@given(settings_())
def test_what_is_printed_is_read_back(settings: CachingSettings) -> None:
    assert parse_settings(str(settings)) == settings


def test_the_defaults_print_nothing() -> None:
    assert str(CachingSettings()) == ""
    assert parse_settings("") == parse_settings("  ") == CachingSettings()


def test_a_list_of_divisions_fills_the_intervals_as_torch_does() -> None:
    found = parse_settings("roundup_power2_divisions:[4:2,16:8,>:16]").roundup_power2_divisions
    assert found == (2, 2, 2, 0, 8, *(16,) * 11)
    assert parse_settings("roundup_power2_divisions:8").divisions == (8,) * 16


BAD = [
    ("expandable_segments:true", "expandable_segments", "True or False"),
    ("max_split_size_mb:19", "max_split_size_mb", "at least the large segment size, 20"),
    ("max_split_size_mb:30,large_segment_size_mb:40", "max_split_size_mb", "at least the large segment size, 40"),
    ("max_split_size_mb:3x", "max_split_size_mb", "whole number"),
    ("max_split_size_mb:-1", "max_split_size_mb", "whole number"),
    ("max_split_size_mb", "max_split_size_mb", "key:value"),
    ("max_split_size_mb:", "max_split_size_mb", "key:value"),
    ("max_non_split_rounding_mb:5", "max_non_split_rounding_mb", "large segment size"),
    ("large_segment_size_mb:10", "large_segment_size_mb", "above 10"),
    ("garbage_collection_threshold:1.0", "garbage_collection_threshold", "below 1"),
    ("garbage_collection_threshold:0", "garbage_collection_threshold", "above 0"),
    ("garbage_collection_threshold:often", "garbage_collection_threshold", "a number"),
    ("per_process_memory_fraction:1.5", "per_process_memory_fraction", "at most 1"),
    ("roundup_power2_divisions:3", "roundup_power2_divisions", "power of two"),
    ("roundup_power2_divisions:[3:4]", "roundup_power2_divisions", "power of two"),
    ("roundup_power2_divisions:[256:2,512:4", "roundup_power2_divisions", "brackets"),
    ("roundup_power2_divisions:[256]", "roundup_power2_divisions", "pairs"),
    ("expandable_segment:True", "expandable_segment", "no such key"),
    ("expandable_segments:True,,max_split_size_mb:64", "''", "key:value"),
]


@pytest.mark.parametrize(("text", "key", "why"), BAD)
def test_a_bad_string_is_refused_with_its_key(text: str, key: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_settings(text)
    assert refused.value.key == key
    assert key in str(refused.value)
    assert why in str(refused.value)


def test_torch_takes_and_refuses_the_same() -> None:
    """Torch keeps refused values for later strings, so that each is tried in a state made plain before."""
    pytest.importorskip("torch")
    stricter = {"expandable_segment:True", "max_split_size_mb:3x", "max_split_size_mb:-1", "per_process_memory_fraction:1.5",
                "expandable_segments:True,,max_split_size_mb:64"}  # fmt: skip
    good = ["", "large_segment_size_mb:11", "max_split_size_mb:20", "roundup_power2_divisions:[4:2,16:8,>:16]",
            "max_split_size_mb:64,max_non_split_rounding_mb:40", "garbage_collection_threshold:0.8,expandable_segments:True",
            "large_segment_size_mb:40,max_split_size_mb:40", "roundup_power2_divisions:[256:0,>:2]"]  # fmt: skip
    bad = [text for text, _, _ in BAD if text not in stricter]
    code = f"""
import torch
for text in {good + bad!r}:
    torch._C._accelerator_setAllocatorSettings("large_segment_size_mb:20,max_non_split_rounding_mb:20")
    try:
        torch._C._accelerator_setAllocatorSettings(text)
        print(1)
    except (ValueError, RuntimeError):
        print(0)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if ran.returncode and "_accelerator_setAllocatorSettings" in ran.stderr:
        pytest.skip("this torch does not say what it takes")
    assert ran.stdout.split() == ["1"] * len(good) + ["0"] * len(bad)
    for text in good:
        parse_settings(text)
