"""The driver as the caching allocator meets it: segments, pages, refusals. ``snapshot_check`` has one that was recorded."""

from __future__ import annotations

from memfit.allocators.caching_settings import MIB

FIRST_ADDRESS = 1 << 32
UNLIMITED = 1 << 44


class Driver:
    """What cudaMalloc and the mapping calls answer: rising addresses, and no once ``capacity`` would be passed."""

    def __init__(self, capacity: int | None) -> None:
        self.capacity = capacity
        self._next = FIRST_ADDRESS

    @property
    def device_bytes(self) -> int:
        """Bytes of the whole device."""
        return UNLIMITED if self.capacity is None else self.capacity

    @property
    def limited(self) -> bool:
        """Whether there is a limit that garbage can be collected against."""
        return self.capacity is not None

    def gives(self, reserved: int, nbytes: int) -> bool:
        """Whether ``nbytes`` more can be had when ``reserved`` are."""
        return self.capacity is None or reserved + nbytes <= self.capacity

    def address(self, nbytes: int) -> int:
        """Where a new segment, or a new range of addresses, of ``nbytes`` begins."""
        address = self._next
        self._next += -(-nbytes // (2 * MIB)) * (2 * MIB)
        return address

    @property
    def refuses(self) -> bool:
        """Whether everything is refused, even what needs no new page: no."""
        return False

    def wants_garbage(self, target: int, reclaimed: int) -> bool:
        """Whether more than ``reclaimed`` bytes must be collected, of a ``target``."""
        return reclaimed < target

    @property
    def releases_for_private(self) -> bool:
        """Whether a private pool's request may give cached segments back: not while a CUDA graph is captured."""
        return False

    def takes_private(self, address: int, nbytes: int) -> bool:
        """Whether a free block of a private pool goes back with the others: not while its graphs live."""
        return False

    def mapped(self, address: int, nbytes: int) -> None:
        """Pages were mapped there."""

    def gave_back(self, address: int, nbytes: int) -> None:
        """A segment, or mapped pages, went back."""
