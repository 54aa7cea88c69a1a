"""The events of a trace through the Python twin of the caching allocator.

Two loops of one meaning. ``_every_rule`` asks the twin for each event. ``_plain`` is for settings under which a block
found is a block taken (no expandable segments, no split limit, no garbage collection): the twin's ``_find``,
``allocate`` and ``free`` written out over local names, five times as fast; a test runs both on the same traces.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field

from memfit.allocators.caching_columns import Columns
from memfit.allocators.caching_twin import ADDRESS_SHIFT, FREE, GONE, PENDING, SIZE_SHIFT, SLOT_MASK, USED, CachingTwin


@dataclass
class Outcome:
    """By block: ``slot``, ``size`` (bytes handed out) and ``address``. ``failed``: the event, or None."""

    slot: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    address: list[int] = field(default_factory=list)
    failed: int | None = None


def run(twin: CachingTwin, columns: Columns, stop: int | None = None, *, plain: bool | None = None) -> Outcome:
    """Serve the events before ``stop`` (None: all). ``plain``: which loop (None: the fast one where it is right)."""
    events = len(columns.action) if stop is None else stop
    if plain is None:
        plain = not (twin.expandable or twin.collects or twin.settings.max_split_size_mb is not None)
    return (_plain if plain else _every_rule)(twin, columns, events)


def _every_rule(twin: CachingTwin, columns: Columns, events: int) -> Outcome:
    outcome = Outcome()
    slots, sizes, addresses = outcome.slot, outcome.size, outcome.address
    given = zip(
        columns.action[:events].tolist(), columns.block[:events].tolist(), columns.rounded[:events].tolist(),
        columns.queue[:events].tolist(), strict=True,
    )  # fmt: skip
    for event, (action, block, size, queue) in enumerate(given):
        twin.event = event
        if action == 0:
            slot = twin.allocate(queue, size)
            if slot < 0:
                outcome.failed = event
                break
            slots.append(slot)
            sizes.append(twin.size[slot])
            addresses.append(twin.address[slot])
        elif action == 1:
            slot = slots[block]
            if slot >= 0:
                slots[block] = -1
                twin.free(slot)
        elif action == 2:
            twin.request_free(slots[block], block)
        else:
            twin.empty_cache()
        if twin.synchronised:
            for freed in twin.synchronised:
                slots[freed] = -1
            twin.synchronised.clear()
    return outcome


def _plain(twin: CachingTwin, columns: Columns, events: int) -> Outcome:
    outcome = Outcome()
    slots, sizes, addresses = outcome.slot, outcome.size, outcome.address
    slot_of, size_of, address_of = slots.append, sizes.append, addresses.append
    address, size, state, before, after = twin.address, twin.size, twin.state, twin.before, twin.after
    queue_of, base, stamp, unused, all_keys = (
        twin.queue_of,
        twin.base,
        twin.count_at_insertion,
        twin.unused,
        twin.free_keys,
    )
    least_rest, synchronised, shift = twin.least_rest, twin.synchronised, SIZE_SHIFT
    event_of_block = columns.event_of_block
    empties = iter((columns.action[:events] == 3).nonzero()[0].tolist())
    for action, block, wanted, queue in zip(
        columns.action[:events].tolist(), columns.block[:events].tolist(), columns.rounded[:events].tolist(),
        columns.queue[:events].tolist(), strict=True,
    ):  # fmt: skip
        if action == 0:
            keys = all_keys[queue]
            position = bisect_left(keys, wanted << shift)
            if position < len(keys):
                slot = keys.pop(position) & SLOT_MASK
            else:
                twin.event = int(event_of_block[block])
                slot = twin.miss(queue, wanted)
                if synchronised:
                    for freed in synchronised:
                        slots[freed] = -1
                    synchronised.clear()
                if slot < 0:
                    outcome.failed = twin.event
                    break
            left = size[slot] - wanted
            start = address[slot]
            if left >= least_rest[queue]:
                next_one = after[slot]
                if unused:
                    rest = unused.pop()
                    address[rest], size[rest], state[rest] = start + wanted, left, FREE
                    before[rest], after[rest], queue_of[rest], base[rest] = slot, next_one, queue, -1
                else:
                    rest = len(size)
                    address.append(start + wanted)
                    size.append(left)
                    state.append(FREE)
                    before.append(slot)
                    after.append(next_one)
                    queue_of.append(queue)
                    base.append(-1)
                    stamp.append(0)
                if next_one >= 0:
                    before[next_one] = rest
                after[slot] = rest
                size[slot] = wanted
                size_of(wanted)
                insort(keys, left << shift | (start + wanted) << ADDRESS_SHIFT | rest)
            else:
                size_of(left + wanted)
            state[slot] = USED
            slot_of(slot)
            address_of(start)
        elif action == 1:
            slot = slots[block]
            if slot < 0:
                continue
            slots[block] = -1
            if state[slot] == PENDING:
                del twin.pending[slot]
            keys = all_keys[queue_of[slot]]
            held = size[slot]
            other = after[slot]
            if other >= 0 and state[other] == FREE:
                more = size[other]
                del keys[bisect_left(keys, more << shift | address[other] << ADDRESS_SHIFT)]
                held += more
                beyond = after[slot] = after[other]
                if beyond >= 0:
                    before[beyond] = slot
                state[other] = GONE
                unused.append(other)
            other = before[slot]
            if other >= 0 and state[other] == FREE:
                more = size[other]
                del keys[bisect_left(keys, more << shift | address[other] << ADDRESS_SHIFT)]
                held += more
                address[slot] = address[other]
                beyond = before[slot] = before[other]
                if beyond >= 0:
                    after[beyond] = slot
                state[other] = GONE
                unused.append(other)
            size[slot] = held
            state[slot] = FREE
            insort(keys, held << shift | address[slot] << ADDRESS_SHIFT | slot)
        elif action == 2:
            twin.request_free(slots[block], block)
        else:
            twin.event = next(empties)
            twin.empty_cache()
            for freed in synchronised:
                slots[freed] = -1
            synchronised.clear()
    return outcome
