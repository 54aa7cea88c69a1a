"""Reserved virtual ranges over one sparse memory file: contiguous to read, paged to hold, shared without a copy.

    addresses   | row 0: 0 1 2 3 4 . . . . . | row 1: 0 1 2 5 . . . . . . |      reserved, contiguous, no page of its own
                         | | | | |                    | | |   |
    memory file          a b c d e                    a b c   f                  only these pages exist

A range is asked for once, as large as a row may ever grow; pages exist from the first write to the part of the file behind
them. Two ranges that show the same part share its pages. The idea is vAttention's (Prabhu et al. 2024, contiguous virtual
key/value memory by the driver's calls); here it is ``memfd_create``, ``mmap(MAP_FIXED)`` and hole punching, on Linux.

The resident set of a process counts a page once for each range that touched it; the file's own count (``resident``) is
what memory really holds, and what a budget is kept by.
"""

from __future__ import annotations

from memfit._core import SharedFile, TokenAppender, VirtualRange

__all__ = ["SharedFile", "TokenAppender", "VirtualRange"]
