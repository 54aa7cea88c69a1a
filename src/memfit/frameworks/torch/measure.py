"""What each op of a captured program costs: seconds, and bytes alive only inside it.

Ops are run alone, once per signature (op, shapes, strides, dtypes, other arguments), on made-up values of the right
kind, so that a program larger than memory is measured too and a model of repeated blocks costs a few dozen runs. Seconds
are process CPU time, the least of several runs; workspace is what the allocator hook saw beyond inputs and outputs.
Figures are kept per user in a cache file keyed by torch version and thread count.
"""

from __future__ import annotations

import inspect
import json
import operator
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node

from memfit.frameworks.torch import allocator_hook
from memfit.frameworks.torch import optimizer as optimizers
from memfit.frameworks.torch.batch_norm import gives_equal_bits, normalise
from memfit.frameworks.torch.inplace import in_place_call
from memfit.frameworks.torch.kernel_layouts import Laid, digest, is_mislaid, strides_of, tensor_text
from memfit.frameworks.torch.program import METADATA_ONLY, Program
from memfit.ir.graph import Graph, Op, Storage

Progress = Callable[[str, int, int], None]
_RUNS, _ENOUGH_SECONDS = 7, 0.05
_FORMAT = 3  # of the cache file: rows of another way of measuring are not read
_COMPARED, _MOST_DRAWS = 4096, 16
_BYTES_PER_SECOND = 4e9
_LOOK_SECONDS = 2e-6


def measured(
    program: Program, table: CostTable, *, optimizer: Any = None, parameters: list[torch.Tensor] | None = None,
    state_in_file: bool = False, progress: Progress | None = None,
) -> Program:  # fmt: skip
    """``program`` with seconds and workspace on every op, true output sizes, and optimizer state as constants.

    Args:
        table: costs by signature; what it lacks is measured and saved.
        optimizer: the step's optimizer, for the cost and state of optimizer ops.
        parameters: the trained parameters, in placeholder order.
        state_in_file: optimizer state is no constant; it only passes through memory as a parameter's first step makes it.

    An op over the memory of its input is left out where layouts are not what the graph says (``CostTable.mislaid``).
    Cost: a few milliseconds per distinct op signature, less what the cache file knows.
    """
    ops: list[Op] = list(program.graph.ops)
    sizes: dict[int, int] = {}
    elsewhere: set[int] = set()
    state = 0
    with allocator_hook.installed():
        for index, op in enumerate(ops):
            if progress is not None and index % 50 == 0:
                progress("measuring ops", index, len(ops))
            node = program.nodes[index]
            if index in program.readings:
                cost: dict[str, Any] = {"seconds": _LOOK_SECONDS, "workspace": 0, "outputs": []}
            elif node is None:
                assert parameters is not None
                parameter = parameters[program.parameter[index]]
                cost = table.optimizer_cost(optimizer, parameter)
                state += cost["state"]
                if state_in_file:
                    cost = {**cost, "workspace": cost["workspace"] + cost["state"]}
            elif index in program.halves:
                cost = table.half_cost(node, program.halves[index])
            else:
                cost = table.op_cost(node)
                for storage, nbytes in zip(op.writes, cost["outputs"], strict=False):
                    if nbytes:
                        sizes[storage] = nbytes
            if (node is not None and table.is_mislaid(node)) or not elsewhere.isdisjoint(op.reads):
                elsewhere.update(op.writes)
            reuse = op.reuse if elsewhere.isdisjoint((*op.reads, *op.writes)) else -1
            if node is not None and reuse >= 0 and not table.same_in_place(node, reuse, program):
                reuse = -1
            ops[index] = replace(op, seconds=cost["seconds"], workspace=cost["workspace"], reuse=reuse)
    table.save()
    storages = [replace(s, nbytes=sizes.get(i, s.nbytes)) for i, s in enumerate(program.graph.storages)]
    meta = dict(program.graph.meta)
    if state_in_file:
        meta["optimizer_state_in_file"] = state
    elif state:
        storages.append(Storage(state, constant=True, label="optimizer state"))
    graph = Graph(tuple(ops), tuple(storages), program.graph.order, program.graph.chain, meta)
    return replace_graph(program, graph)


def replace_graph(program: Program, graph: Graph) -> Program:
    """``program`` with another Graph of the same ops."""
    return replace(program, graph=graph)


_measured_here: dict[Path, dict[str, dict[str, Any]]] = {}


class CostTable:
    """Measured costs by op signature, backed by a per-user file (``$MEMFIT_CACHE`` or ``~/.cache/memfit``).

    A process stays with the figures it used first, whatever others write meanwhile: the same program has the same plans.
    ``mislaid``: of the ops asked for, those whose results are laid out otherwise than the graph says.
    """

    def __init__(self) -> None:
        folder = Path(os.environ.get("MEMFIT_CACHE") or Path.home() / ".cache" / "memfit")
        self.path = folder / f"costs-{_FORMAT}-{torch.__version__}-{torch.get_num_threads()}-threads.json"
        self.rows: dict[str, dict[str, Any]] = {}
        self.mislaid: dict[str, Laid] = {}
        self.changed = False
        self.rows = {**self._stored(), **_measured_here.get(self.path, {})}

    def _stored(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def save(self) -> None:
        """Write new rows beside those in the file, whole or not at all; a cache that cannot be written is no error."""
        if not self.changed:
            return
        self.rows = {**self._stored(), **self.rows}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, suffix=".part", delete=False) as file:
                json.dump(self.rows, file)
            os.replace(file.name, self.path)
        except OSError:
            return

    def op_cost(self, node: Node) -> dict[str, Any]:
        """Seconds, workspace bytes and output storage bytes of the op of an FX node."""
        key = signature(node)
        row = self._row(key, lambda: _measure_node(node))
        if is_mislaid(_tensors(node.meta.get("val")), row.get("laid", [])):
            self.mislaid[key] = (str(node.target), row["laid"])
        return row

    def is_mislaid(self, node: Node) -> bool:
        """Whether the kernel lays out the results of the op of a node otherwise than the graph says."""
        return is_mislaid(_tensors(node.meta.get("val")), self.op_cost(node).get("laid", []))

    def splits(self, node: Node) -> bool:
        """Whether a batch norm may be split in halves: equal bits, seen on this signature."""
        return bool(self._row(f"{signature(node)} halves", lambda: _measure_halves(node))["same"])

    def half_cost(self, node: Node, half: str) -> dict[str, Any]:
        """The cost of one half of a split batch norm; both together cost what the whole does."""
        whole, again = self.op_cost(node), self._row(f"{signature(node)} halves", lambda: _measure_halves(node))
        made = node.meta["val"][0].untyped_storage().nbytes()
        if half == "normalise":
            return {"seconds": min(again["seconds"], whole["seconds"]), "workspace": again["workspace"], "outputs": []}
        return {
            "seconds": max(0.0, whole["seconds"] - again["seconds"]), "workspace": whole["workspace"] + made, "outputs": [],
        }  # fmt: skip

    def same_in_place(self, node: Node, storage: int, program: Program) -> bool:
        """Whether the form of the op that overwrites ``storage`` gives the same bits."""
        form = in_place_call(node, storage, program.storage_of)
        if form is None:
            return False
        return bool(self._row(f"{signature(node)} over {form[2]}", lambda: {"same": _same_bits(node, *form)})["same"])

    def optimizer_cost(self, optimizer: Any, parameter: torch.Tensor) -> dict[str, Any]:
        """Seconds, workspace and state bytes of the optimizer's step of ``parameter``, in the steady state."""
        group = optimizers.group_of(optimizer).get(id(parameter))
        if group is None:
            return {"seconds": 0.0, "workspace": 0, "outputs": [], "state": 0}
        settings = {k: str(v) for k, v in sorted(group.items()) if k != "params"}
        text = f"{type(optimizer).__name__} {settings} {tuple(parameter.shape)} {parameter.stride()} {parameter.dtype}"
        return self._row(digest(text), lambda: _measure_optimizer(optimizer, group, parameter))

    def _row(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        if key not in self.rows:
            random_state = torch.get_rng_state()  # a later way of a fitted step is measured between a user's draws
            try:
                row = measure()
            finally:
                torch.set_rng_state(random_state)
            if row.get("estimated"):
                return row
            self.rows[key] = row
            self.changed = True
        return _measured_here.setdefault(self.path, {}).setdefault(key, self.rows[key])


def signature(node: Node) -> str:
    """A digest of everything that an op's cost depends on but its values."""
    arguments = _mapped(node.args, _shape_text), _mapped(node.kwargs, _shape_text)
    return digest(f"{node.target} {arguments}")


def _shape_text(node: Node) -> str:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return tensor_text(value)


def _mapped(value: Any, convert: Callable[[Node], Any]) -> Any:
    return torch.fx.node.map_arg(value, convert)


def _tensor(node: Node) -> Any:
    """A real value for a node: made up, but for integers that an op wrote beside its result for its own backward.

    Those (indices, or a blob such as oneDNN's recurrent workspace, larger than its fake says) are read without checks,
    so the op that writes them is run.
    """
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return value
    integral = not (value.dtype.is_floating_point or value.dtype.is_complex or value.dtype is torch.bool)
    if integral and node.target is operator.getitem:
        maker: Any = node.args[0]
        return maker.target(*_mapped(maker.args, _tensor), **_mapped(maker.kwargs, _tensor))[node.args[1]]
    made = torch.empty_strided(tuple(value.shape), tuple(value.stride()), dtype=value.dtype, device=value.device)
    if value.dtype.is_floating_point:
        return made.uniform_(0.05, 1.0)
    if value.dtype.is_complex:
        return made.normal_().conj() if value.is_conj() else made.normal_()
    return made.zero_()


def _measure_node(node: Node) -> dict[str, Any]:
    if str(node.target) in METADATA_ONLY:
        return {"seconds": 0.0, "workspace": 0, "outputs": []}
    try:
        with torch.enable_grad(), torch._C._AutoDispatchBelowAutograd():  # as the fitted step runs it
            args, kwargs = _mapped(node.args, _tensor), _mapped(node.kwargs, _tensor)
            given = {t.untyped_storage().data_ptr() for t in _tensors((args, kwargs))}
            before = allocator_hook.live_bytes()
            allocator_hook.reset_peak()
            out = node.target(*args, **kwargs)  # type: ignore[operator]
            peak = allocator_hook.peak_bytes() - before
            fresh = {
                t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for t in _tensors(out) if t.untyped_storage().data_ptr() not in given
            }  # fmt: skip
            held = sum(fresh.values())
            laid = strides_of(_tensors(out))
            del out
            seconds = _least(lambda: node.target(*args, **kwargs))  # type: ignore[operator]
            return {
                "seconds": seconds, "workspace": max(0, peak - held), "outputs": list(fresh.values()), "laid": laid,
            }  # fmt: skip
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, MemoryError):
        nbytes = sum(
            t.numel() * t.element_size() for t in _tensors([n.meta.get("val") for n in (node, *node.all_input_nodes)])
        )
        return {"seconds": nbytes / _BYTES_PER_SECOND, "workspace": 0, "outputs": [], "estimated": True}


def _measure_halves(node: Node) -> dict[str, Any]:
    with torch.no_grad():
        args = _mapped(node.args, _tensor)
        if not gives_equal_bits(args):
            return {"same": False, "seconds": 0.0, "workspace": 0}
        small = torch.full_like(args[1], 0.5)
        before = allocator_hook.live_bytes()
        allocator_hook.reset_peak()
        x, weight, bias = args[:3]
        out = normalise(x, weight, bias, small, small)
        workspace = allocator_hook.peak_bytes() - before - out.untyped_storage().nbytes()
        del out
        seconds = _least(lambda: normalise(x, weight, bias, small, small))
    return {"same": True, "seconds": seconds, "workspace": max(0, workspace)}


def _same_bits(node: Node, target: Any, keyword: str, place: int) -> bool:
    """Whether the overwriting form leaves the same bytes, on several draws of values of either sign.

    A kernel may take another loop where its result lies over an operand: compilers write two, one for memory that does
    not overlap, and contract multiply-adds in one of them (complex products do). One value in a few shows it.
    """
    compared = 0
    try:
        with torch.no_grad():
            for draw in range(_MOST_DRAWS):
                args, kwargs = _mapped(node.args, _tensor), _mapped(node.kwargs, _tensor)
                if draw % 2:
                    for tensor in _tensors((args, kwargs)):
                        if tensor.dtype.is_floating_point:
                            tensor.normal_()
                plain = node.target(*args, **kwargs)  # type: ignore[operator]
                if keyword != "self":
                    kwargs = {**kwargs, keyword: args[place]}
                over = target(*args, **kwargs)
                kept = over.data_ptr() == args[place].data_ptr() and over.stride() == plain.stride()
                if not kept or not same_bits(plain, over):
                    return False
                compared += plain.numel()
                if draw and compared >= _COMPARED:
                    break
            return True
    except (RuntimeError, TypeError, ValueError):
        return False


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same bytes in the order of their elements, NaN counted as equal to NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.is_complex:
        return same_bits(torch.view_as_real(a.resolve_conj()), torch.view_as_real(b.resolve_conj()))
    equal = (a == b) & (a.signbit() == b.signbit()) if a.dtype.is_floating_point else a == b
    return bool((equal | (a.isnan() & b.isnan())).all())


def _measure_optimizer(optimizer: Any, group: dict[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
    made = torch.empty_strided(parameter.shape, parameter.stride(), dtype=parameter.dtype, device=parameter.device)
    twin = torch.nn.Parameter(made.uniform_(0.05, 1.0))
    try:
        other = type(optimizer)([twin], **_settings(optimizer, group))
    except TypeError:
        nbytes = parameter.numel() * parameter.element_size()
        return {"seconds": 6 * nbytes / _BYTES_PER_SECOND, "workspace": 2 * nbytes, "outputs": [], "state": 2 * nbytes}
    gradient = torch.rand_like(made)

    def one() -> None:
        twin.grad = gradient
        other.step()

    one()
    before = allocator_hook.live_bytes()
    allocator_hook.reset_peak()
    one()
    workspace = max(0, allocator_hook.peak_bytes() - before)
    state = optimizers.state_bytes(other, twin)
    return {"seconds": _least(one), "workspace": workspace, "outputs": [], "state": state}


def _settings(optimizer: Any, group: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(type(optimizer).__init__).parameters
    return {k: v for k, v in group.items() if k != "params" and k in known}


def _least(run: Callable[[], Any]) -> float:
    best, total = float("inf"), 0.0
    for _ in range(_RUNS):
        start = time.process_time()
        run()
        seconds = time.process_time() - start
        best, total = min(best, seconds), total + seconds
        if total > _ENOUGH_SECONDS:
            break
    return best


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in torch.utils._pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
