"""Shape rules of convolution, pooling and resizing, over spatial sizes that may be open."""

from __future__ import annotations

from typing import Any

from memfit.frameworks.onnx.shapes import Node, Rule
from memfit.ir.dimension import Expression, Size, ceil_divide
from memfit.ir.program import Type


def _windows(node: Node) -> list[Type | None]:
    """Convolution and pooling over sizes that may be symbolic."""
    shape = node.shape(0)
    spatial = shape[2:]
    rank = len(spatial)
    pool = node.operator in ("MaxPool", "AveragePool", "LpPool")
    kernel: Any = node.attribute("kernel_shape") or (None if pool else node.shape(1)[2:])
    strides = node.attribute("strides") or (1,) * rank
    dilations = node.attribute("dilations") or (1,) * rank
    pads = node.attribute("pads") or (0,) * (2 * rank)
    mode = node.attribute("auto_pad", "NOTSET")
    sizes: list[Size] = []
    for axis in range(rank):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if mode in ("SAME_UPPER", "SAME_LOWER"):
            sizes.append(ceil_divide(spatial[axis], strides[axis]))
            continue
        room = spatial[axis] + (0 if mode == "VALID" else pads[axis] + pads[axis + rank]) - reach
        if node.attribute("ceil_mode", 0):
            if isinstance(room, Expression) or strides[axis] > 1:
                raise TypeError("left to onnx")
            sizes.append(ceil_divide(room, strides[axis]) + 1)
        else:
            sizes.append(room // strides[axis] + 1)
    channels = shape[1] if pool else node.shape(1)[0]
    dtype = {"ConvInteger": "int32"}.get(node.operator, node.type(0).dtype)
    made: list[Type | None] = [Type(dtype, (shape[0], channels, *sizes))]
    if len(node.operation.outputs) > 1:
        made.append(Type("int64", (shape[0], channels, *sizes)))
    return made


def _global_pool(node: Node) -> list[Type | None]:
    shape = node.shape(0)
    return [Type(node.type(0).dtype, (*shape[:2], *(1 for _ in shape[2:])))]


def _resize(node: Node) -> list[Type | None] | None:
    if node.operator == "Upsample" or node.attribute("axes") is not None or not node.has(3):
        return None
    value = node.value(3)
    return (
        None
        if value is None or node.attribute("keep_aspect_ratio_policy", "stretch") != "stretch"
        else [Type(node.type(0).dtype, tuple(value.reshape(-1)))]
    )


WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "MaxPool", "AveragePool", "LpPool"), _windows),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    "Resize": _resize,
}
