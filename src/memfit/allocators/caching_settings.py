"""CachingSettings: what PYTORCH_ALLOC_CONF says, parsed, checked and printed.

    expandable_segments:True,max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,1024:4,>:8]

Keys that decide where memory goes are fields; keys about pinned host memory, locking and error behaviour are accepted
(a string that torch takes must not be refused here) and kept in ``other``. Values that torch refuses are refused here
with the key in the message; the bounds were read off torch 2.13 itself, and a test compares both parsers. Stricter than
torch on purpose: unknown keys, empty entries, and numbers followed by other characters, which torch reads in part.
"""

from __future__ import annotations

from dataclasses import dataclass

from memfit.errors import MemfitError

MIB = 1 << 20
INTERVALS = 16
DEFAULT_LARGE_SEGMENT = 20
SMALLEST_LARGE_SEGMENT = 11

_OTHER = {
    "backend", "release_lock_on_cudamalloc", "release_lock_on_hipmalloc", "pinned_use_cuda_host_register",
    "pinned_use_hip_host_register", "pinned_num_register_threads", "pinned_use_background_threads",
    "pinned_reserve_segment_size_mb", "pinned_free_catch_all", "pinned_max_round_threshold_mb",
    "pinned_max_cached_size_mb", "graph_capture_record_stream_reuse", "throw_on_cudamalloc_oom",
}  # fmt: skip
_OWN = (
    "max_split_size_mb", "max_non_split_rounding_mb", "roundup_power2_divisions", "garbage_collection_threshold",
    "expandable_segments", "large_segment_size_mb", "per_process_memory_fraction",
)  # fmt: skip


class SettingsError(MemfitError):
    """An allocator setting that torch would refuse. ``key``, ``value`` as written, ``why``."""

    def __init__(self, key: str, value: str, why: str) -> None:
        super().__init__(f"allocator setting {key}:{value} cannot be used: {why}")
        self.key, self.value, self.why = key, value, why


@dataclass(frozen=True, slots=True)
class CachingSettings:
    """Settings of the CUDA caching allocator; sizes in MiB as in the string. The defaults are torch's.

    ``max_split_size_mb``: None for no limit. ``max_non_split_rounding_mb``: None for the size of a large segment.
    ``roundup_power2_divisions``: 0 for rounding to 512 bytes, one number for all sizes, or 16 numbers: sizes up to 2 MiB,
    then one for each doubling up to 32 GiB and more. ``memory_fraction``: the part of the capacity that may be reserved.
    """

    expandable_segments: bool = False
    max_split_size_mb: int | None = None
    max_non_split_rounding_mb: int | None = None
    roundup_power2_divisions: int | tuple[int, ...] = 0
    garbage_collection_threshold: float = 0.0
    large_segment_size_mb: int = DEFAULT_LARGE_SEGMENT
    memory_fraction: float | None = None
    other: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @property
    def divisions(self) -> tuple[int, ...]:
        """Divisions of each of the 16 size intervals."""
        given = self.roundup_power2_divisions
        return given if isinstance(given, tuple) else (given,) * INTERVALS

    @property
    def collects_garbage(self) -> bool:
        """Whether garbage is ever collected: torch does it only where a memory fraction below 1 is set too."""
        return self.garbage_collection_threshold > 0 and self.memory_fraction is not None and self.memory_fraction < 1

    @property
    def max_split(self) -> int:
        """Bytes from which blocks are not split; a number above every size where there is no limit."""
        return (1 << 62) if self.max_split_size_mb is None else min(self.max_split_size_mb, 1 << 42) * MIB

    @property
    def max_non_split_rounding(self) -> int:
        """Bytes that a block above ``max_split`` may be larger than the request it serves."""
        given = self.max_non_split_rounding_mb
        return (self.large_segment_size_mb if given is None else min(given, 1 << 42)) * MIB

    @property
    def large_segment(self) -> int:
        """Bytes of the segments that requests between 1 and 10 MiB share, and of the pages of large expandable ones."""
        return self.large_segment_size_mb * MIB

    def __str__(self) -> str:
        """The string to export, '' for the defaults.

        >>> str(CachingSettings(expandable_segments=True, max_split_size_mb=128))
        'expandable_segments:True,max_split_size_mb:128'
        """
        parts = []
        if self.expandable_segments:
            parts.append("expandable_segments:True")
        if self.max_split_size_mb is not None:
            parts.append(f"max_split_size_mb:{self.max_split_size_mb}")
        if self.max_non_split_rounding_mb is not None:
            parts.append(f"max_non_split_rounding_mb:{self.max_non_split_rounding_mb}")
        if self.roundup_power2_divisions != 0:
            parts.append(f"roundup_power2_divisions:{_print_divisions(self.roundup_power2_divisions)}")
        if self.garbage_collection_threshold:
            parts.append(f"garbage_collection_threshold:{self.garbage_collection_threshold:g}")
        if self.large_segment_size_mb != DEFAULT_LARGE_SEGMENT:
            parts.append(f"large_segment_size_mb:{self.large_segment_size_mb}")
        if self.memory_fraction is not None:
            parts.append(f"per_process_memory_fraction:{self.memory_fraction:g}")
        return ",".join([*parts, *(f"{key}:{value}" for key, value in self.other)])


def parse_settings(text: str) -> CachingSettings:
    """The settings that a PYTORCH_ALLOC_CONF string asks for.

    Raises:
        SettingsError: a key that torch does not know, or a value that it refuses.

    >>> parse_settings("max_split_size_mb:128, expandable_segments:True").max_split_size_mb
    128
    """
    fields: dict[str, object] = {}
    other: list[tuple[str, str]] = []
    for key, value in _entries(text):
        if key in ("max_split_size_mb", "max_non_split_rounding_mb", "large_segment_size_mb"):
            fields[key] = _whole(key, value)
        elif key == "garbage_collection_threshold":
            fields[key] = _real(key, value)
            if not 0 < float(value) < 1:
                raise SettingsError(key, value, "write a number above 0 and below 1, such as 0.8")
        elif key == "per_process_memory_fraction":
            fields["memory_fraction"] = _real(key, value)
        elif key == "expandable_segments":
            if value not in ("True", "False"):
                raise SettingsError(key, value, "write True or False")
            fields[key] = value == "True"
        elif key == "roundup_power2_divisions":
            fields[key] = _divisions(value)
        elif key in _OTHER:
            other.append((key, value))
        else:
            raise SettingsError(
                key, value, f"torch knows no such key; those that decide about memory: {', '.join(_OWN)}"
            )
    return CachingSettings(**fields, other=tuple(other))  # type: ignore[arg-type]


def _entries(text: str) -> list[tuple[str, str]]:
    """The (key, value) pairs of a settings string; commas inside [ ] belong to the value."""
    compact = "".join(text.split())
    entries, start, depth = [], 0, 0
    for position, letter in enumerate(compact + ","):
        depth += (letter == "[") - (letter == "]")
        if letter == "," and (depth <= 0 or position == len(compact)):
            entry, start = compact[start:position], position + 1
            if not entry and not compact[start:]:
                continue
            key, colon, value = entry.partition(":")
            if depth:
                raise SettingsError(key, value, "the brackets [ ] do not match")
            if not (key and colon and value):
                raise SettingsError(key or "''", value, "write key:value pairs separated by commas")
            entries.append((key, value))
    return entries


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise SettingsError(key, value, "write a whole number")
    return int(value)


def _real(key: str, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise SettingsError(key, value, "write a number") from error


def _divisions(value: str) -> int | tuple[int, ...]:
    key = "roundup_power2_divisions"
    if not value.startswith("["):
        return _whole(key, value)
    out, last, first = [0] * INTERVALS, 0, True
    for entry in filter(None, value[1:-1].split(",")):
        bound, colon, text = entry.partition(":")
        if not colon:
            raise SettingsError(key, value, f"write size:divisions pairs inside [ ], not {entry!r}")
        number = _whole(key, text)
        if bound == ">":
            out[last + 1 :] = [number] * (INTERVALS - last - 1)
            continue
        size = _whole(key, bound)
        if size < 1 or size & (size - 1):
            raise SettingsError(key, value, f"the size {bound} must be a power of two (MiB)")
        last = min(size.bit_length() - 1, INTERVALS - 1)
        if first:
            out[:last] = [number] * last
        out[last], first = number, False
    return tuple(out)


def _print_divisions(divisions: int | tuple[int, ...]) -> str:
    if isinstance(divisions, int):
        return str(divisions)
    return "[" + ",".join(f"{1 << index}:{number}" for index, number in enumerate(divisions)) + "]"


def _check(settings: CachingSettings) -> None:
    large, split = settings.large_segment_size_mb, settings.max_split_size_mb
    if not SMALLEST_LARGE_SEGMENT <= large <= 1 << 42:
        raise SettingsError("large_segment_size_mb", str(large), "it must be above 10 (MiB)")
    if split is not None and split < large:
        raise SettingsError(
            "max_split_size_mb", str(split), f"it must be at least the large segment size, {large} (MiB)"
        )
    rounding = settings.max_non_split_rounding_mb
    if rounding is not None and rounding < large:
        raise SettingsError(
            "max_non_split_rounding_mb", str(rounding), f"it must be at least the large segment size, {large}"
        )
    if not 0 <= settings.garbage_collection_threshold < 1:
        shown = f"{settings.garbage_collection_threshold:g}"
        raise SettingsError("garbage_collection_threshold", shown, "write a number above 0 and below 1, such as 0.8")
    fraction = settings.memory_fraction
    if fraction is not None and not 0 < fraction <= 1:
        raise SettingsError("per_process_memory_fraction", f"{fraction:g}", "write a number above 0, at most 1")
    listed = settings.roundup_power2_divisions
    numbers = listed if isinstance(listed, tuple) else (listed,)
    if isinstance(listed, tuple) and len(listed) != INTERVALS:
        raise SettingsError("roundup_power2_divisions", str(listed), f"a list has {INTERVALS} entries")
    for number in numbers:
        if number < 0 or number & (number - 1):
            raise SettingsError(
                "roundup_power2_divisions", str(number), "divisions are a power of two (0 only in a list)"
            )
