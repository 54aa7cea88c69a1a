"""Accesses: which page is asked for at each instant, the only thing that replacement looks at.

    asked for   layer0  layer1  layer2  layer0           page    0  1  2  0        pages = 3

Pages are dense numbers from 0 in order of first use. ``page_bytes``: the size of each, 0 where not known. Objects of
several sizes become runs of pages of one size, as a pager sees them: an object of 10 KiB is three pages of 4 KiB, asked
for one after the other. So a capacity is always a number of pages, and the optimum stays computable (with objects that
come and go whole, it is NP-hard: Chrobak, Woeginger, Makino, Xu 2012).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pages = npt.NDArray[np.int32]
MOST_ACCESSES = 2**31 - 2
SMALLEST_PAGE = 4096
"""Bytes: pages that memfit chooses itself are not smaller."""
MOST_CUT = 2**28
"""Accesses to pages that objects may be cut into: 1 GiB of page numbers."""
TABLE_SPAN = 16
"""Ids that span less than this many times their count are numbered by a table, others by sorting."""
MOST_WANTED = 1_000_000
"""Accesses: where objects have several sizes, the page grows until there are no more than this."""


@dataclass(frozen=True)
class Accesses:
    """See the module text. Made by ``accesses_of``, which numbers the pages."""

    page: Pages
    pages: int
    page_bytes: int = 0

    def __len__(self) -> int:
        return len(self.page)


def accesses_of(ids: npt.ArrayLike, sizes: npt.ArrayLike | None = None, page_bytes: int | None = None) -> Accesses:
    """Accesses to whatever ``ids`` (integers) name, one after the other.

    Args:
        ids: what is asked for at each instant.
        sizes: bytes of it, >= 1 and the same at each access to one id; left out, every id is one page of unknown size.
        page_bytes: bytes of a page (>= 1); left out, with ``sizes`` the size of the objects where all have one, else the
            smallest power of two from 4 KiB on that keeps the accesses below a million.

    Raises:
        ValueError: an id with two sizes, a size below 1, or more than 2^31 - 2 accesses (2^28 of cut objects).
    Cost: O(accesses), with far apart ids O(accesses log accesses); and O(pages asked for).
    """
    given = np.asarray(ids, dtype=np.int64)
    page, count, first = _dense(given)
    if page_bytes is not None and page_bytes < 1:
        raise ValueError(f"a page of {page_bytes} bytes; the smallest is 1 byte")
    if sizes is None:
        return _checked(page, count, page_bytes or 0)
    nbytes = np.asarray(sizes, dtype=np.int64)
    if len(nbytes) != len(given):
        raise ValueError(f"{len(given)} accesses and {len(nbytes)} sizes")
    if len(nbytes) and int(nbytes.min()) < 1:
        raise ValueError(f"access {int(np.argmin(nbytes))} is to {int(nbytes.min())} bytes; a size is at least 1")
    of_page = nbytes[first]
    differing = np.flatnonzero(of_page[page] != nbytes)
    if len(differing):
        at = int(differing[0])
        raise ValueError(
            f"id {int(given[at])} has {int(of_page[page[at]])} bytes and, at access {at}, {int(nbytes[at])}"
        )
    if not len(nbytes):
        return Accesses(page, 0, page_bytes or SMALLEST_PAGE)
    if page_bytes is None:
        page_bytes = _chosen_page(nbytes)
    lengths = -(-of_page // page_bytes)
    if int(lengths.max()) == 1:
        return _checked(page, count, page_bytes)
    return _in_pages(page, lengths, page_bytes)


def _chosen_page(nbytes: npt.NDArray[np.int64]) -> int:
    if int(nbytes.min()) == int(nbytes.max()):
        return int(nbytes[0])
    page_bytes = SMALLEST_PAGE
    while page_bytes < int(nbytes.max()) and float((-(-nbytes // page_bytes)).sum(dtype=np.float64)) > MOST_WANTED:
        page_bytes *= 2
    return page_bytes


def _in_pages(page: Pages, lengths: npt.NDArray[np.int64], page_bytes: int) -> Accesses:
    """Each access to an object as the accesses to its pages, in order of address."""
    run = lengths[page]
    total = float(run.sum(dtype=np.float64))
    if total > MOST_CUT:
        raise ValueError(f"pages of {page_bytes} bytes make {total:.3g} accesses of it, at most {MOST_CUT} are simulated; "
                         "take a larger page")  # fmt: skip
    start = np.concatenate([[0], np.cumsum(lengths)])
    ends = np.cumsum(run)
    within = np.arange(int(ends[-1])) - np.repeat(ends - run, run)
    return _checked((np.repeat(start[page], run) + within).astype(np.int32), int(start[-1]), page_bytes)


def _dense(ids: npt.NDArray[np.int64]) -> tuple[Pages, int, npt.NDArray[np.int64]]:
    """Numbers from 0 in order of first use, how many, and where each id comes first."""
    first, inverse = _first_uses(ids)
    rank = np.empty(len(first), np.int32)
    order = np.argsort(first)
    rank[order] = np.arange(len(first), dtype=np.int32)
    return rank[inverse], len(first), first[order]


def _first_uses(ids: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of each distinct id, by size, the position of its first use; and for each access which of them it is to."""
    count = len(ids)
    lowest = int(ids.min()) if count else 0
    span = int(ids.max()) - lowest + 1 if count else 0
    if span > TABLE_SPAN * (count + TABLE_SPAN):
        _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
        return first, inverse.reshape(-1)
    at = ids - lowest
    table = np.full(span, count, np.int64)
    table[at[::-1]] = np.arange(count - 1, -1, -1)  # of several writes to one place the last stays: the first use
    used = table < count
    return table[used], (np.cumsum(used) - 1)[at]


def _checked(page: Pages, pages: int, page_bytes: int) -> Accesses:
    if len(page) > MOST_ACCESSES:
        raise ValueError(f"{len(page)} accesses are more than the {MOST_ACCESSES} that memfit simulates at once")
    return Accesses(np.ascontiguousarray(page), pages, page_bytes)
