"""Projected scratch against the allocator's events of real calls, on shapes that no table was fitted on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memfit.frameworks.torch.calibrate import calibrate, measure
from memfit.frameworks.torch.scratch import extra_output_bytes, is_known, lanes, scratch_bytes
from memfit.frameworks.torch.scratch_recurrent import layer_gradients, layer_outputs
from memfit.frameworks.torch.scratch_terms import tensors_of

pytestmark = pytest.mark.measured
ATEN = torch.ops.aten
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
SMALL = 96 * 1024
"""Buffers of oneDNN's own that are rounded, not modelled."""


def check(func: Any, *args: Any, part: float = 0.06) -> None:
    """Projected scratch is within ``part`` of the op's real peak, or within the small buffers."""
    inside, peak, out = measure((func, args, {}))
    projected = scratch_bytes(func, args, {}, out)
    assert abs(projected - inside) <= max(part * peak, SMALL), (projected, inside, peak)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[int, ...]:
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    extent = draw(st.integers(12, {1: 400, 2: 40, 3: 16}[rank]))
    depthwise = draw(st.booleans())
    channels = draw(st.integers(3, 70))
    features = channels if depthwise else draw(st.integers(4, 70))
    kernel = 3 if depthwise else draw(st.sampled_from([1, 3, 5]))
    batch, stride = draw(st.integers(2, 5)), draw(st.sampled_from([1, 1, 2]))
    return rank, batch, channels, features, extent, kernel, stride, channels if depthwise else 1


def convolution(sizes: tuple[int, ...]) -> tuple[Any, ...]:
    rank, batch, channels, features, extent, kernel, stride, groups = sizes
    x, weight = (
        torch.randn(batch, channels, *[extent] * rank),
        torch.randn(features, channels // groups, *[kernel] * rank),
    )
    return x, weight, None, [stride] * rank, [kernel // 2] * rank, [1] * rank, False, [0] * rank, groups


@FEW
@given(convolutions())
def test_convolution_forward(sizes: tuple[int, ...]) -> None:
    with torch.no_grad():
        check(ATEN.convolution.default, *convolution(sizes))


@FEW
@given(convolutions())
def test_convolution_backward(sizes: tuple[int, ...]) -> None:
    args = convolution(sizes)
    with torch.no_grad():
        grad = torch.ones_like(ATEN.convolution.default(*args))
        check(ATEN.convolution_backward.default, grad, *args[:2], None, *args[3:], [True, True, False], part=0.12)


@st.composite
def depthwise(draw: st.DrawFn) -> tuple[int, ...]:
    height, width = draw(st.integers(2, 16)), draw(st.integers(2, 16))
    rows, columns = draw(st.sampled_from([3, 5, 7])), draw(st.sampled_from([3, 5, 7]))
    stride, full = draw(st.sampled_from([1, 1, 2])), draw(st.booleans())
    down = rows // 2 if full or height < rows else draw(st.integers(0, 1))
    across = columns // 2 if full or width < columns else draw(st.integers(0, 1))
    return draw(st.sampled_from([24, 52, 96, 384])), height, width, rows, columns, stride, down, across


@pytest.mark.skipif(lanes() != 8, reason="rules of the AVX2 kernels, which are not taken here")
@pytest.mark.parametrize("wanted", [[True, True, False], [True, False, False], [False, True, False]])
@settings(FEW, max_examples=40)
@given(sizes=depthwise())
def test_depthwise_backward_in_channels_last(sizes: tuple[int, ...], wanted: list[bool]) -> None:
    channels, height, width, rows, columns, stride, down, across = sizes
    x = torch.randn(2, channels, height, width).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, rows, columns)
    place = [stride, stride], [down, across], [1, 1], False, [0, 0], channels
    with torch.no_grad():
        grad = ATEN.convolution.default(x, weight, None, *place)
        call = ATEN.convolution_backward.default, (grad, x, weight, None, *place, wanted), {}
        inside, peak, out = measure(call)
        projected = scratch_bytes(call[0], call[1], call[2], out)
    assert abs(projected - inside) <= max(0.02 * peak, 4096), (projected, inside, peak)


@FEW
@given(st.integers(3, 40), st.integers(1, 12), st.integers(8, 200), st.integers(8, 200))
def test_lstm_workspace_and_scratch(steps: int, rows: int, inputs: int, hidden: int) -> None:
    layer = torch.nn.LSTM(inputs, hidden)
    x = torch.randn(steps, rows, inputs)
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if "rnn_layer" not in str(func):
                return func(*args, **(kwargs or {}))
            inside, peak, out = measure((func, args, {}))
            seen.append((func, args, inside, peak, out))
            return out

    with Watch():
        layer(x)[0].sum().backward()
    assert len(seen) == 2
    for func, args, inside, peak, out in seen:
        assert abs(scratch_bytes(func, args, {}, out) - inside) <= max(0.02 * peak, 3 * 4096)
        shapes = (layer_gradients if "backward" in str(func) else layer_outputs)(func, args, {})
        assert [tuple(t.shape) for t in shapes[:3]] == [tuple(t.shape) for t in tensors_of(out)[:3]]
    _, args, _, _, out = seen[0]
    workspace = tensors_of(out)[3].untyped_storage().nbytes()
    empty = (*tensors_of(out)[:3], torch.empty(0, dtype=torch.uint8))
    func = ATEN.mkldnn_rnn_layer.default
    assert abs(extra_output_bytes(func, args, {}, empty)[3] - workspace) <= max(0.02 * workspace, 4096)
    with torch.no_grad():
        assert extra_output_bytes(func, args, {}, empty) == {}


@FEW
@given(st.integers(1, 3), st.integers(1, 4), st.integers(20, 900), st.sampled_from([16, 32, 64]), st.booleans())
def test_attention(batch: int, heads: int, length: int, width: int, low: bool) -> None:
    query = torch.randn(batch, heads, length, width, dtype=torch.bfloat16 if low else torch.float32)
    with torch.no_grad():
        check(ATEN._scaled_dot_product_flash_attention_for_cpu.default, query, query, query)


@FEW
@given(st.integers(30, 300), st.integers(30, 300), st.integers(30, 300), st.booleans(), st.booleans())
def test_matrix_product_copies_what_blas_cannot_read(m: int, k: int, n: int, first: bool, second: bool) -> None:
    a = torch.randn(m, 2 * k)[:, ::2] if first else torch.randn(m, k)
    b = torch.randn(1, 1).expand(k, n) if second else torch.randn(n, k).t()
    with torch.no_grad():
        check(ATEN.mm.default, a, b, part=0.01)


@FEW
@given(st.integers(60, 200), st.integers(60, 300), st.sampled_from(["sort", "median", "kthvalue"]), st.integers(0, 1))
def test_order_statistics(rows: int, columns: int, name: str, dim: int) -> None:
    x = torch.randn(rows, columns)
    with torch.no_grad():
        if name == "sort":
            check(ATEN.sort.default, x, dim, part=0.01)
        elif name == "median":
            check(ATEN.median.dim, x, dim, part=0.01)
        else:
            check(ATEN.kthvalue.default, x, 3, dim, part=0.01)


@FEW
@given(st.integers(50, 300), st.integers(50, 300), st.sampled_from([torch.bfloat16, torch.int64, torch.bool]))
def test_promotion_copies_the_narrow_operand(rows: int, columns: int, dtype: torch.dtype) -> None:
    narrow = torch.ones(rows, columns, dtype=dtype)
    with torch.no_grad():
        check(ATEN.mul.Tensor, narrow, torch.randn(rows, columns), part=0.01)


def test_unknown_ops_are_said_to_be_unknown() -> None:
    assert is_known(ATEN.convolution.default)
    assert is_known(ATEN.add.Tensor)
    assert not is_known(ATEN._fft_c2c.out)


def test_calibrate_reports_and_writes_nothing_when_right(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMFIT_CALIBRATION", str(tmp_path / "own" / "table.json"))
    result = calibrate(["aten.kthvalue", "aten.im2col.default"])
    assert result["refitted"] == []
    assert result["path"] is None
    assert result["worst_error"] <= 0.02
    assert [row["op"] for row in result["ops"]] == ["aten.kthvalue.default", "aten.im2col.default"]
    assert not (tmp_path / "own").exists()


def test_calibrate_refits_a_wrong_entry(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from memfit.frameworks.torch import scratch

    monkeypatch.setenv("MEMFIT_CALIBRATION", str(tmp_path / "own" / "table.json"))
    scratch.table.cache_clear()
    scratch.table()["ops"]["aten.kthvalue.default"] = [{"in0": 9, "index0": 1}]
    try:
        result = calibrate(["aten.kthvalue"])
        assert result["refitted"] == ["aten.kthvalue.default"]
        assert result["worst_error"] > 0.5
        assert calibrate(["aten.kthvalue"])["worst_error"] <= 0.02
    finally:
        scratch.table.cache_clear()
