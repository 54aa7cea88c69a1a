"""Tensors for the leak hunt: the graph behind them, what its nodes saved, the storage that a view keeps alive.

The collector stops at autograd's C++ edges; here they are followed: ``grad_fn``, ``next_functions``, the ``_saved_*`` of
each node, the attributes that a custom Function stored on its context. Cost: about 3 us a node. Imported only where the
program has imported torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memfit.frameworks.torch import node_births, primitive_cache
from memfit.ir.leak import Register, Stuck
from memfit.ir.leak_probe import Probe
from memfit.machine.own_code import place
from memfit.runtime.living import survey

Longs = npt.NDArray[np.int64]
TENSOR_BYTES = 450
"""A tensor beside its data: wrapper, TensorImpl, StorageImpl, the allocator's rounding."""
NODE_BYTES = 350
"""A node of the graph beside what it saved."""
_MOST_NODES = 20_000
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_Node: Any = torch.autograd.graph.Node
_PyNode: Any = torch._C._FunctionBase
_saved_names: dict[type, tuple[str, ...]] = {}


class TorchProbe(Probe):
    """Tensors and nodes of the graph."""

    def edges(self, thing: Any) -> Iterable[tuple[str, Any]] | None:
        """A tensor's node and gradient; a node's next nodes and saved tensors."""
        if _is_tensor(thing):
            return _tensor_edges(thing)
        if _is_node(thing):
            return _node_edges(thing)
        return None

    def own_bytes(self, thing: Any, seen: set[int]) -> int | None:
        """Bytes of the storage behind a tensor, once; of a node's own structure."""
        if _is_tensor(thing):
            return TENSOR_BYTES + _storage_bytes(thing, seen)
        return NODE_BYTES if _is_node(thing) else None

    def size(self, thing: Any) -> int | None:
        """Bytes of a tensor's data and of the graph behind it, nodes counted at ``NODE_BYTES``."""
        if not _is_tensor(thing):
            return None
        seen: set[int] = set()
        return _storage_bytes(thing, seen) + NODE_BYTES * graph_nodes(thing)

    def facts(self, thing: Any) -> Iterable[str]:
        """``graph``, ``view``, ``context``, ``parameter``, ``tensor``."""
        if _is_tensor(thing):
            words = ["tensor"]
            node = _grad_fn(thing)
            if node is not None:
                words.append("graph")
                if thing.numel() == 1:
                    words.append("scalar graph")
            storage = _storage(thing)
            if (
                storage is not None
                and isinstance(storage.nbytes(), int)
                and storage.nbytes() >= 4 * max(1, thing.numel() * thing.element_size()) + 4096
            ):
                words.append("view")
            if _is_mapped(storage):
                words.append("mapped")
            return words
        if issubclass(type(thing), _PyNode):
            return ("context",)
        return ()

    def note_births(self, on: bool) -> None:
        """Note the stacks of nodes."""
        node_births.note(on, bool(self.compiled()))

    def birth(self, thing: Any) -> Sequence[tuple[str, int]] | None:
        """The frames that made a node."""
        return node_births.birth(thing) if _is_node(thing) else None

    def shared(self, living: Callable[[type], list[Any]]) -> set[int]:
        """Addresses of all storages that live now."""
        found: set[int] = set()
        for thing in living(torch.Tensor):
            _storage_bytes(thing, found)
        return found

    def stuck(self, old: Longs) -> Iterable[Stuck]:
        """Contexts that keep their own output, and gradients that keep the graph of their own computation."""
        return [*_stuck_contexts(old), *_stuck_gradients()]

    def orphan(self, thing: Any) -> Stuck | None:
        """A tensor that its own node saved through a hook: the two keep each other alive."""
        node = _grad_fn(thing) if _is_tensor(thing) else None
        if node is None or not any(_same_memory(child, thing) for _, child in _node_edges(node)):
            return None
        name = type(node).__name__.rstrip("0123456789").removesuffix("Backward")
        return Stuck(
            "context", "outputs that a hook for saved tensors packed as they are",
            f"saved_tensors_hooks: what pack() returned for the output of {name}",
            "pack() must not keep the tensor that it is given (its graph keeps what pack() returned): return "
            "tensor.detach(), a copy, or something to load it by",
            thing, 1,
        )  # fmt: skip

    def registers(self) -> Iterable[Register]:
        """The functions that torch.jit has compiled or traced, which it never drops."""
        state = sys.modules.get("torch.jit._state")
        unit = getattr(state, "_python_cu", None)
        if unit is not None and hasattr(unit, "get_functions"):
            yield Register(
                "torch.jit's compilation unit (torch.jit._state._python_cu)", "compile", len(unit.get_functions()),
                "torch.jit.trace and torch.jit.script keep every graph with its constants for good: trace once, outside of "
                "the loop, with what changes as an argument, or in a process of its own",
            )  # fmt: skip

    def recording(self) -> Stuck | None:
        """A profiler that is on: its events stay in C++ until it stops."""
        if not torch._C._autograd._profiler_enabled():
            return None
        return Stuck(
            "native", "events that a profiler notes of every operation", "torch.profiler, which is on",
            "a profiler keeps every event until it stops: profile a few steps (schedule=torch.profiler.schedule(wait=1, "
            "warmup=1, active=3) and profiler.step() in the loop), or close its with block before the long run", None, 1,
        )  # fmt: skip

    def compiled(self) -> dict[str, int]:
        """Compilations by torch.compile, by function."""
        utils = sys.modules.get("torch._dynamo.utils")
        found: dict[str, int] = {}
        for metrics in list(getattr(utils, "_compilation_metrics", ())):
            path, line = getattr(metrics, "co_filename", None), getattr(metrics, "co_firstlineno", None)
            name = f"{getattr(metrics, 'co_name', None)} ({place(str(path), int(line or 0))})"
            found[name] = found.get(name, 0) + 1
        return found

    def worker_data(self) -> str:
        """The largest container of Python objects on a data set that workers read."""
        from torch.utils.data import DataLoader

        found: list[tuple[int, str]] = []
        for loader in _of_kind(DataLoader):
            if loader.num_workers > 0:
                for name, value in list(getattr(loader.dataset, "__dict__", {}).items()):
                    if isinstance(value, (list, dict, set, tuple)):
                        found.append(
                            (len(value), f"{type(loader.dataset).__name__}.{name}, read in DataLoader workers")
                        )
        return max(found)[1] if found else ""

    def clear_caches(self) -> str:
        """Empty oneDNN's cache of primitives, and what CUDA's allocator keeps."""
        names = []
        if primitive_cache.clear():
            names.append("oneDNN's primitive cache")
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
            names.append("CUDA's cached blocks")
        return ", ".join(names)


def _stuck_contexts(old: Longs) -> list[Stuck]:
    found: dict[type, list[Any]] = {}
    for node in unreachable_contexts(old):
        found.setdefault(type(node), []).append(node)
    stuck = []
    for kind, nodes in found.items():
        name = kind.__name__.removesuffix("Backward")
        attributes = [key for key, value in vars(nodes[0]).items() if isinstance(value, torch.Tensor)] or ["…"]
        stuck.append(Stuck(
            "context", f"outputs that {name}.forward stored on its own ctx", f"ctx.{attributes[0]} of {name}",
            f"ctx.save_for_backward({attributes[0]}) instead of ctx.{attributes[0]} = …: the output, its graph and ctx keep "
            "each other alive, and no collector sees it", nodes[0], len(nodes), _line_of_class(kind),
        ))  # fmt: skip
    return stuck


def _line_of_class(kind: type) -> str:
    function = getattr(kind, "_forward_cls", None)
    code = getattr(getattr(function, "forward", None), "__code__", None)
    return place(code.co_filename, code.co_firstlineno) if code is not None else ""


def _stuck_gradients() -> list[Stuck]:
    """Leaves whose gradient has a graph: with ``create_graph=True`` the two keep each other alive."""
    holders = []
    for thing in _of_kind(torch.Tensor):
        if thing.is_leaf and thing.requires_grad:
            gradient = thing.grad
            if gradient is not None and _grad_fn(gradient) is not None:
                holders.append(thing)
    if not holders:
        return []
    return [Stuck(
        "gradient_graph", "gradients with the graph that computed them (backward(create_graph=True))", "parameter.grad",
        "use torch.autograd.grad(loss, parameters, create_graph=True), or set every .grad to None when the step is done",
        holders[0], len(holders),
    )]  # fmt: skip


def graph_nodes(tensor: torch.Tensor, most: int = _MOST_NODES) -> int:
    """Nodes of the graph behind a tensor, counted up to ``most``."""
    first = _grad_fn(tensor)
    if first is None:
        return 0
    seen, queue = {first}, [first]
    while queue and len(seen) < most:
        for node, _ in queue.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                queue.append(node)
    return len(seen)


def unreachable_contexts(old: Longs) -> list[Any]:
    """Contexts of custom Functions, made since, that keep one of their own outputs: a cycle through C++ for good."""
    found = []
    for thing in _of_kind(_PyNode):
        where = int(np.searchsorted(old, id(thing)))
        if not (where < len(old) and int(old[where]) == id(thing)) and keeps_own_output(thing):
            found.append(thing)
    return found


def keeps_own_output(node: Any) -> bool:
    """Whether an attribute of a custom Function's context is a tensor whose graph leads back to that Function."""
    return any(isinstance(v, torch.Tensor) and _leads_to(_grad_fn(v), node) for v in _context_values(node))


def _context_values(node: Any) -> list[Any]:
    try:
        values = list(vars(node).values())
    except TypeError:
        return []
    return [part for value in values for part in (value if isinstance(value, (list, tuple)) else (value,))]


def _leads_to(start: Any, node: Any) -> bool:
    seen: set[Any] = set()
    queue = [start]
    while queue and len(seen) < 2000:
        here = queue.pop()
        if here is None or here in seen:
            continue
        if here is node:
            return True
        seen.add(here)
        queue.extend(following for following, _ in here.next_functions)
    return False


def _of_kind(base: Any) -> list[Any]:
    """All living objects of a type or of what derives from it. Cost: 18 ms per 100,000 objects."""
    return survey().of_kind(base)


def _is_tensor(thing: Any) -> bool:
    """By type, not by ``isinstance``, which asks proxies for their class and so runs their code."""
    return issubclass(type(thing), torch.Tensor)


_node_kinds: dict[type, bool] = {}


def _is_node(thing: Any) -> bool:
    kind = type(thing)
    known = _node_kinds.get(kind)
    if known is None:
        known = _node_kinds[kind] = _is_node_kind(kind)
    return known


def _is_node_kind(kind: type) -> bool:
    if issubclass(kind, type):
        return False
    return issubclass(kind, _PyNode) or (
        ("Backward" in kind.__name__ or kind.__name__ == "AccumulateGrad") and hasattr(kind, "next_functions")
    )


def _grad_fn(tensor: torch.Tensor) -> Any:
    try:
        return tensor.grad_fn if tensor.requires_grad else None
    except (RuntimeError, AttributeError):
        return None


def _tensor_edges(tensor: torch.Tensor) -> list[tuple[str, Any]]:
    found = []
    node = _grad_fn(tensor)
    if node is not None:
        found.append((".grad_fn", node))
    if tensor.is_leaf:
        gradient = tensor.grad
        if gradient is not None:
            found.append((".grad", gradient))
        for name in _TENSOR_HOOKS:
            hooks = getattr(tensor, name, None)
            if hooks:
                found.append((f".{name}", hooks))
    elif tensor._is_view() and tensor._base is not None:
        found.append(("._base", tensor._base))
    return found


def _node_edges(node: Any) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for number, (following, _) in enumerate(node.next_functions):
        if following is not None:
            found.append((f".next_functions[{number}]", following))
    variable = getattr(node, "variable", None)
    if isinstance(variable, torch.Tensor):
        found.append((".variable", variable))
    kind = type(node)
    if kind not in _saved_names:
        names = tuple(name for name in dir(kind) if name.startswith("_saved_"))
        _saved_names[kind] = (*names, *(("saved_tensors",) if isinstance(node, _PyNode) else ()))
    for name in _saved_names[kind]:
        try:
            value = getattr(node, name)
        except Exception:  # freed by backward, or changed in place since
            continue
        for part in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(part, torch.Tensor):
                found.append((f".{name}", part))
    found.extend((".context", value) for value in _context_values(node) if isinstance(value, torch.Tensor))
    return found


def _storage(tensor: torch.Tensor) -> Any:
    try:
        return tensor.untyped_storage()
    except Exception:
        return None


def _same_memory(one: Any, other: torch.Tensor) -> bool:
    """Whether a saved value, which is made anew when it is asked for, is that tensor."""
    if not _is_tensor(one):
        return False
    first, second = _storage(one), _storage(other)
    return first is not None and second is not None and first.data_ptr() == second.data_ptr() != 0


def _is_mapped(storage: Any) -> bool:
    try:
        return bool(storage is not None and storage.device.type == "cpu" and storage.is_shared())
    except Exception:  # a tensor that is only traced
        return False


def _storage_bytes(tensor: torch.Tensor, seen: set[int]) -> int:
    storage = _storage(tensor)
    if storage is None:
        return 0
    try:
        if tensor.device.type == "meta":
            return 0
        address, nbytes = storage.data_ptr(), int(storage.nbytes())
    except Exception:  # a tensor that is only traced has no memory
        return 0
    if address == 0 or address in seen:
        return 0
    seen.add(address)
    return nbytes
