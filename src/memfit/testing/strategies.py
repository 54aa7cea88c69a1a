"""Graphs to test and measure planners with: drawn by hypothesis, or built like the steps of real models.

Seconds of the built ones follow a stated machine: matrix products at 50 GFLOP/s, everything else at 5 GB/s.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from memfit.ir.graph import Graph, Op, Storage

_FLOPS, _BYTES_PER_SECOND = 50e9, 5e9


@dataclass
class GraphBuilder:
    """Adds storages and ops one by one; ``graph`` freezes them."""

    storages: list[Storage] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    order: list[tuple[int, int]] = field(default_factory=list)
    chain: list[int] = field(default_factory=list)

    def storage(self, nbytes: int, **flags: Any) -> int:
        """A new storage's index."""
        self.storages.append(Storage(int(nbytes), **flags))
        return len(self.storages) - 1

    def op(self, name: str, reads: list[int], nbytes: list[int] | int, flops: float = 0, **fields: Any) -> list[int]:
        """An op creating storages of ``nbytes``; its seconds from ``flops`` or the bytes it touches."""
        outputs: bool = fields.pop("output", False)
        sizes = [nbytes] if isinstance(nbytes, int) else nbytes
        writes = [self.storage(size, output=outputs, label=name) for size in sizes]
        touched = sum(self.storages[s].nbytes for s in [*reads, *writes])
        seconds = fields.pop("seconds", None)
        if seconds is None:
            seconds = flops / _FLOPS if flops else touched / _BYTES_PER_SECOND
        self.ops.append(Op(name, tuple(dict.fromkeys(reads)), tuple(writes), seconds=seconds, label=name, **fields))
        return writes

    def graph(self) -> Graph:
        """The Graph so far."""
        return Graph(tuple(self.ops), tuple(self.storages), tuple(self.order), tuple(self.chain))


def random_graph(seed: int, ops: int = 12, *, training: bool = True) -> Graph:
    """A small random graph: a forward part, and when ``training`` a mirrored part that reads it backwards.

    Has multi-output ops, workspace, reuse, ops that may not repeat, random ops in a chain, in-place optimizer ops.
    """
    draw = random.Random(seed)
    b = GraphBuilder()
    constants = [b.storage(draw.randint(1, 8), constant=True) for _ in range(2)]
    made = [b.storage(draw.randint(1, 8), constant=True)]
    forward: list[tuple[list[int], list[int]]] = []
    half = max(2, ops // 2) if training else ops
    for index in range(half):
        reads = draw.sample(made[-4:], min(len(made[-4:]), draw.choice([1, 1, 2])))
        if draw.random() < 0.4:
            reads.append(draw.choice(constants))
        sizes = [draw.randint(1, 10) for _ in range(draw.choice([1, 1, 1, 2]))]
        fields: dict[str, Any] = {
            "workspace": draw.choice([0, 0, draw.randint(1, 6)]),
            "seconds": draw.randint(1, 9) * 1.0,
        }
        if draw.random() < 0.3:
            source = draw.choice(reads)
            fields["reuse"] = source
            if draw.random() < 0.8:
                sizes[0] = b.storages[source].nbytes
        if draw.random() < 0.1:
            fields["repeatable"] = False
        if draw.random() < 0.15:
            b.chain.append(index)
        writes = b.op(f"f{index}", reads, sizes, **fields)
        forward.append((reads, writes))
        made += writes
    if training:
        gradient = b.op("loss", [made[-1]], 1, seconds=1.0, output=draw.random() < 0.5)
        for index in reversed(range(half)):
            reads, writes = forward[index]
            wants = [*gradient, draw.choice(writes if draw.random() < 0.5 else reads)]
            fields = {"workspace": draw.choice([0, 0, 3]), "seconds": draw.randint(1, 9) * 1.0, "phase": "backward"}
            size = b.storages[reads[0]].nbytes
            if size == b.storages[gradient[0]].nbytes and draw.random() < 0.5:
                fields["reuse"] = gradient[0]
            gradient = b.op(f"b{index}", wants, size, **fields)
            for constant in constants:
                if constant in reads and draw.random() < 0.7:
                    weight = b.op(f"w{index}", wants, b.storages[constant].nbytes, seconds=2.0, phase="backward",
                                  output=draw.random() < 0.5)  # fmt: skip
                    if draw.random() < 0.4 and not any(constant in op.changes for op in b.ops):
                        b.op(f"o{index}", [*weight, constant], [], seconds=1.0, phase="optimizer", repeatable=False,
                             changes=(constant,))  # fmt: skip
    # What an op changes in place, every reader reads before; later readers in program order stay after.
    for changer, op in enumerate(b.ops):
        for constant in op.changes:
            late = [i for i in range(changer + 1, len(b.ops)) if constant in b.ops[i].reads]
            for reader in late:  # read before instead: the program's order is then not valid, so drop the read
                kept = tuple(s for s in b.ops[reader].reads if s != constant)
                b.ops[reader] = Op(**{**_fields(b.ops[reader]), "reads": kept})
            b.order += [(i, changer) for i in range(changer) if constant in b.ops[i].reads]
    return b.graph()


def _fields(op: Op) -> dict[str, Any]:
    return {name: getattr(op, name) for name in Op.__slots__}


def mlp(layers: int = 4, width: int = 256, batch: int = 512, *, bias: bool = False) -> Graph:
    """Linear and ReLU layers, squared error, backward to all weights. About 7 ops per layer."""
    b = GraphBuilder()
    activation = 4 * batch * width
    weights = [b.storage(4 * width * width, constant=True) for _ in range(layers)]
    current = b.storage(activation, constant=True)
    flops = 2.0 * batch * width * width
    saved = []
    for weight in weights:
        (linear,) = b.op("linear", [current, weight], activation, flops)
        if bias:
            (linear,) = b.op("bias", [linear], activation, reuse=linear)
        (relu,) = b.op("relu", [linear], activation, reuse=linear)
        saved.append((current, weight, relu))
        current = relu
    b.op("loss", [current], 4, output=True)
    (gradient,) = b.op("loss_backward", [current], activation, phase="backward")
    for depth, (source, weight, relu) in reversed(list(enumerate(saved))):
        (masked,) = b.op("relu_backward", [gradient, relu], activation, phase="backward", reuse=gradient)
        b.op("weight_gradient", [masked, source], 4 * width * width, flops, phase="backward", output=True)
        if depth:
            (gradient,) = b.op("input_gradient", [masked, weight], activation, flops, phase="backward")
    return b.graph()


def chain(length: int = 8, nbytes: int = 1, seconds: float = 1.0) -> Graph:
    """The unit chain of the checkpointing literature: each backward op reads its forward input."""
    b = GraphBuilder()
    current = b.storage(nbytes, constant=True)
    made = [current]
    for index in range(length):
        (current,) = b.op(f"f{index}", [current], nbytes, seconds=seconds)
        made.append(current)
    gradient = current
    for index in reversed(range(length)):
        (gradient,) = b.op(f"b{index}", [gradient, made[index]], nbytes, seconds=seconds, phase="backward",
                           output=index == 0)  # fmt: skip
    return b.graph()


def transformer(
    blocks: int = 8, width: int = 256, heads: int = 4, batch: int = 4, length: int = 256, vocabulary: int = 4096,
    *, dropout: bool = False, optimizer: bool = False,
) -> Graph:  # fmt: skip
    """A GPT-2-like training step: pre-norm blocks, fused attention, head, cross entropy. About 28 ops a block."""
    b = GraphBuilder()
    tokens = batch * length
    act = 4 * tokens * width
    parameters: dict[str, int] = {}

    def parameter(name: str, count: int) -> int:
        parameters[name] = b.storage(4 * count, constant=True, label=name)
        return parameters[name]

    def norm(x: int, tag: str) -> tuple[int, list[int]]:
        gain, shift = parameter(f"{tag}.gain", width), parameter(f"{tag}.shift", width)
        y, mean, scale = b.op("layer_norm", [x, gain, shift], [act, 4 * tokens, 4 * tokens])
        return y, [x, mean, scale, gain]

    def linear(x: int, tag: str, out: int, inp: int) -> tuple[int, tuple[int, int, int, int, str]]:
        w, bias = parameter(f"{tag}.weight", out * inp), parameter(f"{tag}.bias", out)
        (y,) = b.op("addmm", [x, w, bias], 4 * tokens * out, 2.0 * tokens * out * inp)
        return y, (x, w, inp, out, tag)

    gradients: list[tuple[str, int]] = []

    def linear_backward(dy: int, saved: tuple[int, int, int, int, str]) -> int:
        x, w, inp, out, tag = saved
        (dx,) = b.op("mm_input", [dy, w], 4 * tokens * inp, 2.0 * tokens * out * inp, phase="backward")
        (dw,) = b.op(
            "mm_weight", [dy, x], 4 * out * inp, 2.0 * tokens * out * inp, phase="backward", output=not optimizer
        )
        (db,) = b.op("sum_bias", [dy], 4 * out, phase="backward", output=not optimizer)
        gradients.extend([(f"{tag}.weight", dw), (f"{tag}.bias", db)])
        return dx

    def norm_backward(dy: int, saved: list[int], tag: str) -> int:
        dx, dg, db = b.op("layer_norm_backward", [dy, *saved], [act, 4 * width, 4 * width], phase="backward")
        for name, g in (("gain", dg), ("shift", db)):
            if not optimizer:
                b.storages[g] = Storage(4 * width, output=True)
            gradients.append((f"{tag}.{name}", g))
        return dx

    def drop(x: int) -> tuple[int, int]:
        if not dropout:
            return x, -1
        b.chain.append(len(b.ops))
        (mask,) = b.op("bernoulli", [x], act // 4)
        (y,) = b.op("mul_mask", [x, mask], act)
        return y, mask

    def drop_backward(dy: int, mask: int) -> int:
        return dy if mask < 0 else b.op("mul_mask_backward", [dy, mask], act, phase="backward", reuse=dy)[0]

    table = parameter("embedding", vocabulary * width)
    ids = b.storage(8 * tokens, constant=True)
    (x,) = b.op("embedding", [table, ids], act)
    tape: list[Any] = []
    for i in range(blocks):
        tag = f"block{i}"
        h, n1 = norm(x, f"{tag}.norm1")
        qkv, l1 = linear(h, f"{tag}.qkv", 3 * width, width)
        flops = 4.0 * batch * length * length * width / 2
        att, lse = b.op("attention", [qkv], [act, 4 * tokens * heads], flops)
        p, l2 = linear(att, f"{tag}.proj", width, width)
        p, m1 = drop(p)
        (x1,) = b.op("add", [x, p], act, reuse=p)
        h2, n2 = norm(x1, f"{tag}.norm2")
        u, l3 = linear(h2, f"{tag}.up", 4 * width, width)
        (a,) = b.op("gelu", [u], 4 * act, seconds=4 * act / 4 * 20 / _FLOPS)
        d, l4 = linear(a, f"{tag}.down", width, 4 * width)
        d, m2 = drop(d)
        (x2,) = b.op("add", [x1, d], act, reuse=d)
        tape.append((tag, n1, l1, (qkv, att, lse, flops), l2, m1, n2, l3, u, l4, m2))
        x = x2
    h, last = norm(x, "final")
    logits, head = linear(h, "head", vocabulary, width)
    (logp,) = b.op("log_softmax", [logits], 4 * tokens * vocabulary, reuse=logits)
    b.op("nll", [logp, ids], 4, output=True)
    (dlogits,) = b.op("log_softmax_backward", [logp, ids], 4 * tokens * vocabulary, phase="backward")
    dx = norm_backward(linear_backward(dlogits, head), last, "final")
    for tag, n1, l1, (qkv, att, lse, flops), l2, m1, n2, l3, u, l4, m2 in reversed(tape):
        da = linear_backward(drop_backward(dx, m2), l4)
        (du,) = b.op("gelu_backward", [da, u], 4 * act, seconds=4 * act / 4 * 30 / _FLOPS, phase="backward", reuse=da)
        dh = norm_backward(linear_backward(du, l3), n2, f"{tag}.norm2")
        (dx,) = b.op("add_gradient", [dx, dh], act, phase="backward", reuse=dh)
        datt = linear_backward(drop_backward(dx, m1), l2)
        (dqkv,) = b.op("attention_backward", [datt, qkv, att, lse], 3 * act, 2.5 * flops, phase="backward")
        dh = norm_backward(linear_backward(dqkv, l1), n1, f"{tag}.norm1")
        (dx,) = b.op("add_gradient", [dx, dh], act, phase="backward", reuse=dh)
    (dtable,) = b.op("embedding_backward", [dx, ids], 4 * vocabulary * width, phase="backward", output=not optimizer)
    gradients.append(("embedding", dtable))
    if optimizer:
        for name, gradient in gradients:
            p = parameters[name]
            nbytes = b.storages[p].nbytes
            m, v = b.storage(nbytes, constant=True), b.storage(nbytes, constant=True)
            readers = [i for i, op in enumerate(b.ops) if p in op.reads]
            b.op("moments", [gradient, m, v], [], phase="optimizer", repeatable=False, changes=(m, v))
            (step,) = b.op("denominator", [v], nbytes, phase="optimizer", repeatable=False)
            b.order.append((len(b.ops) - 2, len(b.ops) - 1))
            b.op("addcdiv", [p, m, step], [], phase="optimizer", repeatable=False, changes=(p,))
            b.order += [(i, len(b.ops) - 1) for i in (*readers, len(b.ops) - 3)]
    return b.graph()


def convolutional(blocks: int = 9, width: int = 32, batch: int = 16, image: int = 32) -> Graph:
    """A ResNet-like training step: three stages of basic blocks, width doubling and image halving, with batch norm."""
    b = GraphBuilder()
    statistics: list[int] = []

    def convolution(x: int, cin: int, cout: int, side: int) -> tuple[int, tuple[int, int, int, int, int]]:
        w = b.storage(4 * cin * cout * 9, constant=True)
        nbytes = 4 * batch * cout * side * side
        flops = 2.0 * batch * cout * cin * 9 * side * side
        (y,) = b.op("convolution", [x, w], nbytes, flops, workspace=nbytes)
        return y, (x, w, cin, cout, side)

    def norm(x: int, cout: int) -> tuple[int, tuple[int, int, int, int]]:
        gain = b.storage(4 * cout, constant=True)
        statistics.append(b.storage(8 * cout, constant=True))
        nbytes = b.storages[x].nbytes
        y, mean, scale = b.op("batch_norm", [x, gain], [nbytes, 4 * cout, 4 * cout])
        b.op("running_statistics", [mean, scale, statistics[-1]], [], repeatable=False, changes=(statistics[-1],))
        return y, (x, gain, mean, scale)

    def relu(x: int) -> int:
        return b.op("relu", [x], b.storages[x].nbytes, reuse=x)[0]

    def convolution_backward(dy: int, saved: tuple[int, int, int, int, int], *, first: bool = False) -> int:
        x, w, cin, cout, side = saved
        flops = 2.0 * batch * cout * cin * 9 * side * side
        b.op("weight_gradient", [dy, x], 4 * cin * cout * 9, flops, phase="backward", output=True,
             workspace=b.storages[dy].nbytes)  # fmt: skip
        if first:
            return dy
        return b.op("input_gradient", [dy, w], b.storages[x].nbytes, flops, phase="backward")[0]

    def norm_backward(dy: int, saved: tuple[int, int, int, int]) -> int:
        x, gain, mean, scale = saved
        sizes = [b.storages[x].nbytes, 2 * b.storages[gain].nbytes]
        writes = b.op("batch_norm_backward", [dy, x, gain, mean, scale], sizes, phase="backward")
        b.storages[writes[1]] = Storage(b.storages[writes[1]].nbytes, output=True)
        return writes[0]

    def relu_backward(dy: int, y: int) -> int:
        return b.op("relu_backward", [dy, y], b.storages[y].nbytes, phase="backward", reuse=dy)[0]

    x = b.storage(4 * batch * 3 * image * image, constant=True)
    c, stem = convolution(x, 3, width, image)
    n, stem_norm = norm(c, width)
    x = stem_out = relu(n)
    tape: list[Any] = []
    channels, side = width, image
    for i in range(blocks):
        widen = i > 0 and i % max(1, blocks // 3) == 0
        cout, out_side = (2 * channels, side // 2) if widen else (channels, side)
        c1, s1 = convolution(x, channels, cout, out_side)
        n1, t1 = norm(c1, cout)
        r1 = relu(n1)
        c2, s2 = convolution(r1, cout, cout, out_side)
        n2, t2 = norm(c2, cout)
        shortcut, s3 = convolution(x, channels, cout, out_side) if widen else (x, None)
        (total,) = b.op("add", [n2, shortcut], b.storages[n2].nbytes, reuse=n2)
        y = relu(total)
        tape.append((s1, t1, r1, s2, t2, s3, y))
        x, channels, side = y, cout, out_side
    (pooled,) = b.op("mean", [x], 4 * batch * channels)
    b.op("loss", [pooled], 4, output=True)
    (dx,) = b.op("mean_backward", [pooled], b.storages[x].nbytes, phase="backward")
    for s1, t1, r1, s2, t2, s3, y in reversed(tape):
        dt = relu_backward(dx, y)
        dn = norm_backward(dt, t2)
        dr = convolution_backward(dn, s2)
        dn1 = norm_backward(relu_backward(dr, r1), t1)
        d1 = convolution_backward(dn1, s1)
        d2 = convolution_backward(dt, s3) if s3 else dt
        (dx,) = b.op("add_gradient", [d1, d2], b.storages[d1].nbytes, phase="backward", reuse=d1)
    convolution_backward(norm_backward(relu_backward(dx, stem_out), stem_norm), stem, first=True)
    return b.graph()


def random_schedule(graph: Graph, seed: int, repeats: int = 6) -> tuple[int, ...]:
    """A valid schedule of ``graph``: the program's order with some ops run again at random places where they may."""
    draw = random.Random(seed)
    schedule = list(range(len(graph.ops)))
    for _ in range(draw.randint(0, repeats)):
        op = draw.randrange(len(graph.ops))
        place = draw.randint(schedule.index(op) + 1, len(schedule))
        changers = [after for before, after in graph.order if before == op]
        if graph.ops[op].repeatable and all(schedule.index(after) >= place for after in changers):
            schedule.insert(place, op)
    return tuple(schedule)
