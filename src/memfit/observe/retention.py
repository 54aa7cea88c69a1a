"""Who holds an object: the shortest chain from a name that a person knows down to it.

The graph joins what the collector sees (``gc.get_referents``) with edges that frameworks know (``Edges``: a tensor's
graph, what its nodes saved). The walk is forward, breadth first, from named roots in the order in which people look:
the script's globals and the variables of its running functions, then modules of the same program, then everybody
else's. So the first chain found is the shortest from the best-known root, and one walk serves any number of targets.
Code is not followed into its module's globals, nor are modules entered through a reference: every module is a root of
its own. Memory held only by C++ (cycles through a graph) has no root and is not found; that itself is told.

Cost: about 1 us an object and its edges, so 0.2 to 0.5 s for a process with torch; ends early once all targets are met.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from memfit.machine.own_code import is_own_module, is_users_file
from memfit.runtime.living import frame_variables

Edges = Callable[[Any], "Iterable[tuple[str, Any]] | None"]
"""Further edges of an object as (label, object), None where there are none."""


@dataclass(frozen=True, slots=True)
class Root:
    """A name and what it refers to. ``rank``: 0 the script's, 1 the program's, 2 everybody's."""

    name: str
    value: Any
    rank: int


@dataclass(frozen=True, slots=True)
class Chain:
    """From a root to an object: ``objects[0]`` is the root's value; ``labels[k]`` leads from object k to k + 1."""

    root: str
    rank: int
    objects: tuple[Any, ...]
    labels: tuple[str, ...]


_ITS_OWN = frozenset({
    "__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__", "__cached__", "__builtins__", "__path__",
})  # fmt: skip
"""What every module has; other names with underscores, as ``__warningregistry__``, are tables that programs fill."""


def program_roots() -> Iterator[Root]:
    """The program's own names: globals of its modules, variables of its running functions. Cost: one look at each module."""
    main = sys.modules.get("__main__")
    frames = [frame for frame in running_frames() if is_users_file(frame.f_code.co_filename)]
    yield from _main_roots(main, frames)
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) if module is not main else None
        if isinstance(file, str) and is_users_file(file) and not is_own_module(name, file):
            for key, value in list(vars(module).items()):
                if key not in _ITS_OWN:
                    yield Root(f"{name}.{key}", value, 1)


def _main_roots(main: ModuleType | None, users: list[FrameType]) -> Iterator[Root]:
    if main is not None and not is_own_module(getattr(main, "__name__", ""), getattr(main, "__file__", None)):
        for name, value in list(vars(main).items()):
            if name not in _ITS_OWN:
                yield Root(name, value, 0)
    for frame in users:
        if frame.f_code.co_name == "<module>":
            continue
        for name, value in frame_variables(frame).items():
            yield Root(f"{name} in {frame.f_code.co_qualname}()", value, 0)


def roots() -> Iterator[Root]:
    """All names to start from, best known first."""
    main = sys.modules.get("__main__")
    frames = list(running_frames())
    users = [frame for frame in frames if is_users_file(frame.f_code.co_filename)]
    yield from _main_roots(main, users)
    later: list[Root] = []
    for name, module in list(sys.modules.items()):
        if module is main or not isinstance(module, ModuleType):
            continue
        file = getattr(module, "__file__", None)
        if is_own_module(name, file):
            continue
        rank = 1 if isinstance(file, str) and is_users_file(file) else 2
        for key, value in list(vars(module).items()):
            if key not in _ITS_OWN:
                root = Root(f"{name}.{key}", value, rank)
                if rank == 1:
                    yield root
                else:
                    later.append(root)
    yield from later
    for frame in frames:
        if frame not in users:
            for name, value in frame_variables(frame).items():
                yield Root(f"{name} in {frame.f_code.co_qualname}()", value, 2)


def running_frames() -> Iterator[FrameType]:
    """Frames of all threads, this thread's first, memfit's own left out."""
    current = sys._current_frames()
    order = sorted(current, key=lambda ident: ident != threading.get_ident())
    for ident in order:
        stack: list[FrameType] = []
        frame: FrameType | None = current[ident]
        while frame is not None:
            if not is_own_module(str(frame.f_globals.get("__name__", "")), frame.f_code.co_filename):
                stack.append(frame)  # own frames would hold this list, and it them
            frame = frame.f_back
        yield from stack


_LEAVES = frozenset({str, bytes, int, float, complex, bool, type(None), CodeType})


class Retention:
    """One walk over the whole process; ``find`` answers for the objects asked for.

    ``reached``: afterwards, the addresses of all that the walk met; complete where an object was not found.
    """

    def __init__(self, edges: Edges, skip: Collection[int] = ()) -> None:
        self._edges = edges
        self._skip = set(skip)
        self._tables = {id(vars(module)) for module in list(sys.modules.values()) if isinstance(module, ModuleType)}
        self.walked = 0
        self.reached: set[int] = set()

    def find(self, targets: Iterable[Any], limit: int = 3_000_000) -> dict[int, Chain]:
        """The chain to each target that a root reaches, by ``id``. ``limit``: objects walked at most."""
        wanted = {id(target) for target in targets}
        parent: dict[int, tuple[Any, str]] = {}
        root_of: dict[int, tuple[Root, Any]] = {}
        alive: list[Any] = []  # what the edges made on the way lives until the chains are built
        found: dict[int, Any] = {}
        batch: list[Root] = []
        rank = -1
        for root in [*roots(), None]:
            if root is not None and root.rank == rank:
                batch.append(root)
                continue
            if batch and len(found) < len(wanted) and self.walked < limit:
                self._walk(batch, wanted, parent, root_of, alive, found, limit)
            if root is not None:
                batch, rank = [root], root.rank
        self.reached = parent.keys() | root_of.keys()
        return {address: self._chain(thing, parent, root_of) for address, thing in found.items()}

    def _walk(
        self, batch: list[Root], wanted: set[int], parent: dict[int, tuple[Any, str]],
        root_of: dict[int, tuple[Root, Any]], alive: list[Any], found: dict[int, Any], limit: int,
    ) -> None:  # fmt: skip
        queue: deque[Any] = deque()
        for root in batch:
            address = id(root.value)
            if address in parent or address in root_of or issubclass(type(root.value), ModuleType):
                continue
            if issubclass(type(root.value), (type, FunctionType)) and not _belongs(root):
                continue  # an import of somebody else's: reached through its own module
            root_of[address] = (root, root.value)
            if address in wanted:
                found[address] = root.value
            queue.append(root.value)
        referents, tables, edges, skip = gc.get_referents, self._tables, self._edges, self._skip
        rank, leaves = batch[0].rank, _LEAVES
        while queue and self.walked < limit and len(found) < len(wanted):
            thing = queue.popleft()
            self.walked += 1
            more = edges(thing)
            if more is not None:
                for label, child in more:
                    address = id(child)
                    if address not in parent and address not in root_of:
                        parent[address] = (thing, label)
                        alive.append(child)
                        queue.append(child)
                        if address in wanted:
                            found[address] = child
            for child in referents(thing):
                kind = type(child)
                if kind in leaves:
                    if id(child) in wanted and id(child) not in parent:
                        parent[id(child)] = (thing, "")
                        found[id(child)] = child
                    continue
                address = id(child)
                if address in parent or address in root_of or address in tables or address in skip:
                    continue
                if issubclass(kind, ModuleType) or (rank < 2 and issubclass(kind, type) and not _is_users(child)):
                    continue
                parent[address] = (thing, "")
                queue.append(child)
                if address in wanted:
                    found[address] = child

    def _chain(self, thing: Any, parent: dict[int, tuple[Any, str]], root_of: dict[int, tuple[Root, Any]]) -> Chain:
        objects, given = [thing], []
        while id(objects[-1]) not in root_of:
            above, label = parent[id(objects[-1])]
            given.append(label)
            objects.append(above)
        objects.reverse()
        given.reverse()
        root = root_of[id(objects[0])][0]
        return Chain(root.name, root.rank, tuple(objects), tuple(given))


def _is_users(kind: type) -> bool:
    module = sys.modules.get(getattr(kind, "__module__", ""))
    if kind.__module__ == "__main__":
        return True
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and is_users_file(file)


def _belongs(root: Root) -> bool:
    """Whether a function or class was made in the module under whose name it is found."""
    module = getattr(root.value, "__module__", None)
    return root.rank == 0 or (isinstance(module, str) and root.name.startswith(module + "."))
