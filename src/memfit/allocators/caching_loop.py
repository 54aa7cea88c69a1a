"""The events of a trace through the Python twin of the caching allocator.

Two loops of one meaning. ``_every_rule`` asks the twin for each event. ``_plain`` is for settings under which a block
found is a block taken (no expandable segments, no split limit, no garbage collection): the twin's ``_find``,
``allocate`` and ``free`` written out over local names, three times as fast; a test runs both on the same traces.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from memfit.allocators.caching_columns import Columns
from memfit.allocators.caching_twin import ADDRESS_SHIFT, SIZE_SHIFT, SLOT_MASK, CachingTwin

Ints = npt.NDArray[np.int64]


@dataclass
class Outcome:
    """By block: ``slot`` (-1 once a synchronisation freed it), ``size`` (bytes handed out), ``address``.

    ``failed``: the event, or None. ``seconds``: CPU time of the events alone, without turning columns into lists.
    """

    slot: list[int]
    size: Ints
    address: Ints
    failed: int | None = None
    seconds: float = 0.0


@dataclass
class _Told:
    """What a loop notes: the slot and tail of each block, and the blocks larger than what their request rounds to."""

    slots: list[int] = field(default_factory=list)
    tails: list[int] = field(default_factory=list)
    larger: list[tuple[int, int]] = field(default_factory=list)
    failed: int | None = None


def run(twin: CachingTwin, columns: Columns, stop: int | None = None, *, plain: bool | None = None) -> Outcome:
    """Serve the events before ``stop`` (None: all). ``plain``: which loop (None: the fast one where it is right)."""
    events = len(columns.action) if stop is None else stop
    if plain is None:
        plain = not (twin.expandable or twin.collects or twin.settings.max_split_size_mb is not None)
    told = _Told()
    loop, lists = (_plain, _plain_lists) if plain else (_every_rule, _lists)
    given = lists(twin, columns, events)
    begun = time.process_time()
    loop(twin, told, *given)
    seconds = time.process_time() - begun
    served = len(told.slots)
    size = columns.rounded[columns.event_of_block[:served]].copy()
    for block, nbytes in told.larger:
        size[block] = nbytes
    address = np.fromiter((tail >> ADDRESS_SHIFT for tail in told.tails), np.int64, served)
    return Outcome(told.slots, size, address, told.failed, seconds)


def _lists(twin: CachingTwin, columns: Columns, events: int) -> tuple[list[int], list[int], list[int], list[int]]:
    taken = (columns.action, columns.block, columns.rounded, columns.queue)
    action, block, rounded, queue = (column[:events].tolist() for column in taken)
    return action, block, rounded, queue


def _every_rule(
    twin: CachingTwin, told: _Told, actions: list[int], blocks: list[int], sizes: list[int], queues: list[int]
) -> None:
    slots = told.slots
    given = zip(actions, blocks, sizes, queues, strict=True)
    for event, (action, block, size, queue) in enumerate(given):
        twin.event = event
        if action == 0:
            slot = twin.allocate(queue, size)
            if slot < 0:
                told.failed = event
                break
            slots.append(slot)
            told.tails.append(twin.tail[slot])
            if twin.size[slot] != size:
                told.larger.append((block, twin.size[slot]))
        elif action == 1:
            if slots[block] >= 0:
                twin.free(slots[block])
        elif action == 2:
            twin.request_free(slots[block], block)
        else:
            twin.empty_cache()
        if twin.synchronised:
            _forget(twin, slots)


def _forget(twin: CachingTwin, slots: list[int]) -> None:
    for freed in twin.synchronised:
        slots[freed] = -1
    twin.synchronised.clear()


Home = tuple[list[int], int, list[int], int]


def _plain_lists(
    twin: CachingTwin, columns: Columns, events: int
) -> tuple[list[int], list[int], list[int], list[int], list[Home], list[int]]:
    """Actions and blocks; of each block its event, rounded size and queue (keys, least rest, unused slots, number)."""
    queues: list[Home] = list(zip(twin.free_keys, twin.least_rest, twin.unused, range(len(twin.queues)), strict=True))
    mine = columns.event_of_block[columns.event_of_block < events]
    home = [queues[queue] for queue in columns.queue[mine].tolist()]
    action = columns.action[:events]
    empties = (action == 3).nonzero()[0].tolist()
    return (
        action.tolist(),
        columns.block[:events].tolist(),
        mine.tolist(),
        columns.rounded[mine].tolist(),
        home,
        empties,
    )


def _plain(
    twin: CachingTwin, told: _Told, actions: list[int], blocks: list[int], events: list[int], sizes: list[int],
    home: list[Home], empties: list[int],
) -> None:  # fmt: skip
    slots = told.slots
    slot_of, tail_of = slots.append, told.tails.append
    tail, key, size, before, after = twin.tail, twin.key, twin.size, twin.before, twin.after
    pending, shift, mask, address_shift = twin.pending, SIZE_SHIFT, SLOT_MASK, ADDRESS_SHIFT
    next_size, next_empty = iter(sizes).__next__, iter(empties).__next__
    for action, block in zip(actions, blocks, strict=True):
        if action == 0:
            wanted = next_size()
            keys, least, unused, queue = home[block]
            position = bisect_left(keys, wanted << shift)
            if position < len(keys):
                slot = keys[position] & mask
                key[slot] = 0
            else:
                position = -1
                twin.event = events[block]
                slot = twin.miss(queue, wanted)
                if twin.synchronised:
                    _forget(twin, slots)
                if slot < 0:
                    told.failed = twin.event
                    break
            slot_of(slot)
            start = tail[slot]
            tail_of(start)
            left = size[slot] - wanted
            if left >= least:
                beyond = after[slot]
                if unused:
                    rest = unused.pop()
                    here = tail[rest] = start + (wanted << address_shift) + rest - slot
                    size[rest], before[rest], after[rest] = left, slot, beyond
                else:
                    rest = twin.place((start >> address_shift) + wanted, left, queue, -1)
                    here = tail[rest]
                    before[rest], after[rest] = slot, beyond
                if beyond >= 0:
                    before[beyond] = rest
                after[slot], size[slot] = rest, wanted
                here += left << shift
                key[rest] = here
                if position < 0:
                    insort(keys, here)
                elif position == 0 or keys[position - 1] < here:  # what is left takes the place of the whole
                    keys[position] = here
                else:
                    del keys[position]
                    insort(keys, here, 0, position)
            else:
                if position >= 0:
                    del keys[position]
                if left:
                    told.larger.append((block, left + wanted))
        elif action == 1:
            slot = slots[block]
            if slot < 0:
                continue
            if pending:
                pending.pop(slot, None)
            keys, _, unused, _ = home[block]
            held = size[slot]
            position = -1
            other = after[slot]
            if other >= 0 and key[other]:
                position = bisect_left(keys, key[other])
                key[other] = 0
                held += size[other]
                beyond = after[slot] = after[other]
                if beyond >= 0:
                    before[beyond] = slot
                unused.append(other)
            other = before[slot]
            if other >= 0 and key[other]:
                if position >= 0:
                    del keys[position]
                position = bisect_left(keys, key[other])
                held += size[other]
                beyond = after[other] = after[slot]
                if beyond >= 0:
                    before[beyond] = other
                unused.append(slot)
                slot = other
            size[slot] = held
            here = key[slot] = (held << shift) + tail[slot]
            if position < 0:
                insort(keys, here)
            elif position + 1 == len(keys) or here < keys[position + 1]:  # the joined block takes the place of its part
                keys[position] = here
            else:
                del keys[position]
                insort(keys, here, position)
        elif action == 2:
            twin.request_free(slots[block], block)
        else:
            twin.event = next_empty()
            twin.empty_cache()
            _forget(twin, slots)
