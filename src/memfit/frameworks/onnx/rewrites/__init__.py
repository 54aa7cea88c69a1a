"""What only ONNX's operators need: reshape targets, transposes, convolutions with what follows them, fused activations.

Each rewrite is a pass of the pipeline in ``memfit.passes.exact``; its module states the numerics.
"""

from __future__ import annotations

from memfit.frameworks.onnx.rewrites.activations import fuse_activations
from memfit.frameworks.onnx.rewrites.broadcasts import remove_expansions
from memfit.frameworks.onnx.rewrites.linear import fold_into_linear
from memfit.frameworks.onnx.rewrites.shapes import simplify_shapes
from memfit.frameworks.onnx.rewrites.splits import join_slices
from memfit.frameworks.onnx.rewrites.transposes import simplify_transposes
from memfit.passes.workbench import Pass

REWRITES: tuple[tuple[str, Pass], ...] = (
    ("shapes", simplify_shapes),
    ("transposes", simplify_transposes),
    ("broadcasts", remove_expansions),
    ("splits", join_slices),
    ("linear", fold_into_linear),
    ("activations", fuse_activations),
)
"""In the order in which a round runs them."""
