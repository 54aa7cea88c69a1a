"""Which living objects are the watching's own: they pile up too, but are nobody's leak.

Types of memfit tell for themselves; its plain lists and dicts do not, and no name of the program's reaches them, just as
none reaches what compiled code keeps. So they are walked from the watching's own instances and module globals, through
plain containers only. What the watching only looks at (``theirs``) is not entered. Cost: 1 us per own object.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Collection
from types import ModuleType
from typing import Any

import numpy as np

from memfit.runtime.living import Survey

_WATCHING = ("memfit.observe", "memfit.api.leak", "memfit.api.watch", "memfit.ir.leak", "memfit.frameworks.torch.leak_")
_PLAIN = frozenset({list, dict, set, frozenset, tuple, deque, Counter, defaultdict, OrderedDict})


def is_watching(kind: type) -> bool:
    """Whether a type is part of the watching."""
    module = kind.__module__  # a class may have put anything there
    return isinstance(module, str) and module.startswith(_WATCHING)


def own_addresses(seen: Survey, theirs: Collection[int]) -> set[int]:
    """Addresses of the watching's own objects among all that live; ``theirs``: ids of the program's that it keeps."""
    queue: deque[Any] = deque()
    kinds = [
        kind
        for kind, at in zip(seen.kinds.tolist(), seen.first.tolist(), strict=True)
        if is_watching(type(seen.objects[at]))
    ]
    queue.extend(seen.objects[index] for index in np.flatnonzero(np.isin(seen.kind, kinds)).tolist())
    for name, module in list(sys.modules.items()):
        if name.startswith(_WATCHING) and isinstance(module, ModuleType):
            queue.extend(value for value in list(vars(module).values()) if type(value) in _PLAIN)
    own = {id(thing) for thing in queue}
    kept_apart = {*theirs, id(seen), id(seen.objects)}
    while queue:
        for child in gc.get_referents(queue.popleft()):
            kind = type(child)
            if kind not in _PLAIN and not is_watching(kind):
                continue
            address = id(child)
            if address not in own and address not in kept_apart:
                own.add(address)
                queue.append(child)
    return own
