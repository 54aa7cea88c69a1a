"""Torch Inductor's own orders for a peak (torch/_inductor/memory.py: lpmf, bfs, dfs), driven on a memfit Graph.

The functions are torch's, called as the pass calls them; only the nodes and buffers that they look at are stand-ins.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

from memfit.ir.graph import Graph
from memfit.passes.reorder import requirements


class _Named(SimpleNamespace):
    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__

    def get_name(self) -> str:
        return str(self.name)

    def get_outputs(self) -> list[Any]:
        return list(self.outputs)

    def get_buffer_names(self) -> list[str]:
        return [*(buffer.name for buffer in self.outputs), f"ran {self.mpi_node.index}"]


def inductor_orders(graph: Graph) -> dict[str, list[int]]:
    """Method -> order. Raises ImportError where this torch has no such module."""
    from torch._inductor import memory
    from torch._inductor.memory import MemoryPlanningInfoForBuffer, MemoryPlanningInfoForNode
    from torch.utils._ordered_set import OrderedSet

    buffers = {
        s: _Named(name=f"buffer {s}", mpi_buffer=MemoryPlanningInfoForBuffer(storage.nbytes, storage.nbytes))
        for s, storage in enumerate(graph.storages) if not storage.constant
    }  # fmt: skip
    nodes = [
        _Named(
            name=f"op {index}", outputs=[buffers[s] for s in op.writes],
            mpi_node=MemoryPlanningInfoForNode(index, sum(graph.storages[s].nbytes for s in op.writes)),
        )
        for index, op in enumerate(graph.ops)
    ]  # fmt: skip
    for index, (op, before) in enumerate(zip(graph.ops, requirements(graph), strict=True)):
        read = [s for s in op.reads if s in buffers]
        node = nodes[index]
        node.mpi_node.pred_buffers = OrderedSet([buffers[s] for s in read])
        node.mpi_node.pred_nodes = OrderedSet([nodes[p] for p in sorted(before - {index})])
        node.unmet_dependencies = [
            SimpleNamespace(name=name)
            for name in [*(f"buffer {s}" for s in read), *(f"ran {p}" for p in sorted(before - {index}))]
        ]
        for s in read:
            buffers[s].mpi_buffer.succ_nodes.add(node)
            buffers[s].mpi_buffer.succ_nodes_for_ordering.add(node)
        for p in node.mpi_node.pred_nodes:
            p.mpi_node.succ_nodes.add(node)
    named = {buffer.name: buffer for buffer in buffers.values()}
    outputs = OrderedSet([f"buffer {s}" for s in buffers if graph.storages[s].output])
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10 * len(nodes) + 1000))
    try:
        found = {
            "lpmf": memory.topological_sort_lpmf(nodes, {}, named, outputs),
            "bfs": memory.topological_sort_bfs(nodes),
            "dfs": memory.topological_sort_dfs(nodes),
        }
    finally:
        sys.setrecursionlimit(limit)
    return {method: [node.mpi_node.index for node in order] for method, order in found.items()}
