"""What kind of leak it is, and what to do: told from the chain, from what piles up, and from what that keeps alive.

A kind is a general way in which programs keep memory, never one program's; the first rule that holds decides, special
before general. ``holder`` in a fix is the name a person knows.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from memfit.observe.held_bytes import Held

KINDS = {
    "hook": "hooks that are added and never removed",
    "figure": "figures of pyplot that are never closed",
    "handler": "handlers or callbacks that are added and never removed",
    "compile": "code compiled or traced anew at every step",
    "context": "tensors stored on the context of an autograd Function",
    "cycle": "reference cycles that the collector does not reach in time",
    "graph": "values kept together with their autograd graph",
    "gradient_graph": "gradients that keep the graph of their own computation",
    "exception": "exceptions that keep the variables of the functions they passed through",
    "view": "small views that keep large memory alive",
    "lru_cache": "a cache of functools without a bound, or one that keeps its object",
    "thread": "threads that never end",
    "task": "tasks, generators or coroutines that never end",
    "file": "files, sockets or processes that are never closed",
    "closure": "functions wrapped around functions, each keeping the one before",
    "container": "a container that only grows",
    "replaced": "a value that is replaced by a larger one at every step",
    "objects": "objects that pile up",
    "worker": "memory of worker processes",
    "native": "memory taken by compiled code and not given back",
    "unknown": "memory that grows, with no holder in Python",
}


@dataclass(frozen=True)
class Clue:
    """What is known: ``path`` of the holder, what the container is, what one element is and keeps alive."""

    path: str
    container: str
    element: str
    held: Held
    chain_types: tuple[str, ...] = ()
    method_cache: bool = False
    births: Counter[str] = field(default_factory=Counter)


_HOOKS = re.compile(r"\._?\w*hooks\w*|_hooks\b|hooks\b")
_HANDLERS = re.compile(r"\._?(handlers|callbacks|observers|listeners|filters|subscribers)(\[[^\]]*\]| \([^)]*\))*$")
_TASKS = {"Task", "coroutine", "generator", "async_generator", "Future", "_GatheringFuture", "Handle", "TimerHandle"}
_FILES = {"TextIOWrapper", "BufferedReader", "BufferedWriter", "FileIO", "socket", "Popen", "Connection", "mmap"}
_TRACES = {"GraphModule", "FuncGraph", "ConcreteFunction", "ClosedJaxpr", "Jaxpr", "MeshExecutable", "CacheEntry",
           "CompiledFxGraph", "OutputGraph", "GuardManager", "RootGuardManager", "ConcreteGraphFunction",
           "LoadedExecutable", "Lowered", "PjitFunction", "AtomicFunction", "ExecutionEngine"}  # fmt: skip


_PLAIN_CONTAINERS = {"list", "set", "deque", "tuple", "frozenset", "UserList", "dict", "OrderedDict", "defaultdict",
                     "Counter", "WeakKeyDictionary", "WeakValueDictionary", "ChainMap", "_lru_cache_wrapper"}  # fmt: skip


def kind_and_fix(clue: Clue) -> tuple[str, str]:
    """The kind, and the fix in one sentence."""
    path, held, holder = clue.path, clue.held, clue.path
    types = set(held.types)
    facts = held.facts
    inside = path.partition(" in ")[0]
    if "Gcf.figs" in path or (types & {"Figure"} and not facts["graph"]):
        return "figure", "call plt.close(fig) when the figure is saved, or draw into one figure again and again"
    if _HOOKS.search(inside) or clue.element == "RemovableHandle":
        return "hook", (
            f"hooks pile up in {holder}: keep the handle that register_…hook() returns and call handle.remove(), "
            "or register once before the loop"
        )
    if types & _TRACES and not facts["graph"] and (clue.element in _TRACES or "torch._" in path or "jax" in path
                                                   or "tensorflow" in path or len(types & _TRACES) > 1):  # fmt: skip
        return "compile", (
            "compile or jit the function once, outside of the loop, and call it with values of the same kind "
            "(tensors rather than Python numbers, few shapes, one function object)"
        )
    if _HANDLERS.search(inside) or "atexit" in inside or "weakref.finalize" in inside:
        return (
            "handler",
            f"something is added to {holder} at every step: add it once, or remove it when the step is done",
        )
    if clue.element in _TASKS or "Task" in types:
        return "task", f"await, cancel or close what {holder} keeps, and drop it when it is done"
    if clue.element == "Thread" or ("Thread" in types and "Thread" in path + clue.container) or "threading._" in path:
        return "thread", "let the threads end and join them, or use one pool (concurrent.futures) for all steps"
    if facts["exception"] or facts["frame"] or "traceback" in types:
        return "exception", (
            f"{holder} keeps exceptions, and with them every variable of the functions they passed through: keep "
            "str(error) or traceback.format_exc(), or error.with_traceback(None)"
        )
    if facts["graph"]:
        what = (
            "loss.item() for a number or .detach() for a tensor"
            if facts["scalar graph"]
            else ".detach() (or .cpu().numpy())"
        )
        return "graph", f"{holder} keeps tensors with the whole graph behind them: keep {what} instead"
    if "lru_cache" in path or clue.container == "_lru_cache_wrapper":
        if clue.method_cache:
            return "lru_cache", (
                f"{holder} keeps every object on which the method was called: cache on the object "
                "(functools.cached_property, or a dict in self) or make it a function of values only"
            )
        return "lru_cache", f"give {holder} a bound (lru_cache(maxsize=…)) or clear it (cache_clear()) between jobs"
    if facts["view"]:
        return "view", f"{holder} keeps small views of large memory: keep x[…].clone() (NumPy: .copy()) instead"
    if types & _FILES and (clue.element in _FILES or types & {"Popen"}):
        return "file", f"close what {holder} keeps (with … as …:) when the step is done"
    if clue.container in ("dict", "OrderedDict", "defaultdict", "Counter", "WeakKeyDictionary", "ChainMap"):
        return "container", (
            f"{holder} gets a new key at every step and none is ever removed: delete the entry when it is done with, "
            "or bound it (functools.lru_cache(maxsize=…), or pop the oldest)"
        )
    if "__warningregistry__" in path:
        return "container", (
            f"each warning with a new text is remembered in {holder}: keep the text of a warning the same (log what changes), "
            'or let it be shown always (warnings.simplefilter("always", …)), which remembers nothing'
        )
    if clue.container and clue.container not in _PLAIN_CONTAINERS:
        return "container", (
            f"{holder}, a {clue.container}, keeps all that it was given: clear it, or make a new one, when a step is done"
        )
    if "closure variable" in path or clue.element in ("function", "cell", "method", "partial"):
        return "closure", f"each function kept by {holder} wraps the one before: wrap once, or put the original back"
    if clue.container in ("list", "set", "deque", "tuple", "frozenset", "UserList"):
        bound = "collections.deque(maxlen=…)" if clue.container in ("list", "deque", "UserList") else "a bound"
        return "container", (
            f"{holder} only ever grows: keep a running sum instead of the parts, clear it when an epoch or request is "
            f"done, or bound it ({bound})"
        )
    return "objects", f"drop the reference at {holder} when the step is done"
