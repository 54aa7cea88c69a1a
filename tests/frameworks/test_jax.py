"""JAX: every captured value has a size, the callable that comes back has equal results, and a fitted step keeps its budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memfit.analyses.liveness import simulate
from memfit.analyses.lowering import lower, numbers_for
from memfit.errors import BudgetError, CaptureError, TargetError
from memfit.ir.program import programs, text_of
from memfit.ir.step import Step
from memfit.ir.verify import verify

jax = pytest.importorskip("jax", reason="JAX is not installed (pip install 'memfit[jax]')")
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from memfit.frameworks.jax.apply import apply  # noqa: E402
from memfit.frameworks.jax.capture import capture  # noqa: E402
from memfit.frameworks.jax.fitting import fit_step  # noqa: E402
from memfit.frameworks.jax.recompute import Recompute, recomputing  # noqa: E402
from memfit.frameworks.jax.steps import jax_step  # noqa: E402
from memfit.frameworks.which import framework_of  # noqa: E402

X = np.linspace(-1.0, 1.0, 48, dtype=np.float32).reshape(6, 8)
W = {"w": np.full((8, 8), 0.1, np.float32), "u": np.eye(8, dtype=np.float32) * 0.3}


def multilayer(p: Any, x: Any) -> Any:
    return jax.nn.relu(jax.nn.gelu(x @ p["w"]) @ p["u"]).sum()


def attention(p: Any, x: Any) -> Any:
    return jax.nn.softmax(x @ p["w"] @ x.T / 3.0, -1) @ x


def recurrent(p: Any, x: Any) -> Any:
    carried, all_states = jax.lax.scan(
        lambda h, row: ((h2 := jnp.tanh(row @ p["w"] + h @ p["u"])), h2), jnp.zeros(8), x
    )
    return carried.sum() + all_states.mean()


def looping(p: Any, x: Any) -> Any:
    y = jax.lax.while_loop(lambda v: v.sum() < 100.0, lambda v: v * 2 + p["w"].sum(), x)
    return jax.lax.cond(y.sum() > 3, lambda v: v + 1, lambda v: v - 1, y)


def random(p: Any, x: Any) -> Any:
    return jax.random.permutation(jax.random.key(1), x) * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape) @ p["w"]


def convolution(p: Any, x: Any) -> Any:
    return jax.lax.conv_general_dilated(x.reshape(1, 1, 6, 8), p["w"][:3, :3].reshape(1, 1, 3, 3), (1, 1), "SAME")


def sorting(p: Any, x: Any) -> Any:
    return jnp.sort(x, axis=0), jnp.argsort(x @ p["w"]), jnp.unique(jnp.round(x), size=5), jnp.fft.rfft(x).real


@jax.custom_vjp
def clipped(x: Any) -> Any:
    return jnp.clip(x, -0.5, 0.5)


clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (g * 0.25,))


def own_rule(p: Any, x: Any) -> Any:
    return (clipped(x @ p["w"]) ** 2).sum()


def checkpointed(p: Any, x: Any) -> Any:
    return jax.checkpoint(lambda v: jnp.sin(v @ p["w"]) @ p["u"])(x).sum()


MODELS = [multilayer, attention, recurrent, looping, random, convolution, sorting, own_rule, checkpointed]
TRAINED = [multilayer, recurrent, own_rule, checkpointed]
CASES = [*MODELS, *(jax.value_and_grad(f) for f in TRAINED)]


def equal(a: Any, b: Any) -> bool:
    same = jax.tree.map(lambda x, y: bool(np.array_equal(np.asarray(x), np.asarray(y))), a, b)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("function", CASES, ids=lambda f: getattr(f, "__name__", "gradient"))
def test_capture_and_apply_give_the_same_bits_and_every_value_a_size(function: Callable[..., Any]) -> None:
    captured = capture(function, (W, X))
    verify(captured.program)
    assert all(kind.known for p in programs(captured.program) for kind in p.types.values())
    assert equal(jax.jit(apply(captured))(W, X), jax.jit(function)(W, X))
    graph = lower(captured.program, numbers_for(captured.program, {}))
    least = X.nbytes + W["w"].nbytes * 2
    assert simulate(graph, range(len(graph.ops))).peak >= least - (0 if "w" in text_of(captured.program) else least)


@pytest.mark.parametrize("function", [multilayer, attention, looping, jax.value_and_grad(multilayer)])
def test_named_dimensions_stay_and_are_read_off_the_arguments(function: Callable[..., Any]) -> None:
    from jax import export

    (rows,) = export.symbolic_shape("rows")
    captured = capture(function, (W, jax.ShapeDtypeStruct((2 * rows, 8), jnp.float32)))
    assert captured.program.dimensions == ("rows",)
    assert all(kind.known for p in programs(captured.program) for kind in p.types.values())
    run = jax.jit(apply(captured))
    for x in (X, X[:4]):
        assert equal(run(W, x), jax.jit(function)(W, x))
    small, large = (
        simulate(g, range(len(g.ops))).peak
        for g in (lower(captured.program, numbers_for(captured.program, {"rows": n})) for n in (2, 2000))
    )
    assert large > 100 * small
    with pytest.raises(TargetError, match=r"called with|by the other"):
        apply(captured)(W, (X, X))


def test_recomputation_in_a_backward_pass_stays_an_operation_of_its_own() -> None:
    program = capture(jax.grad(checkpointed), (W, X)).program
    assert any(op.kind.startswith("jax.remat") and op.bodies for op in program.operations)


def test_recomputed_parts_give_the_same_loss_and_gradients() -> None:
    for function in (multilayer, own_rule, recurrent):
        captured = capture(function, (W, X), keep_rules=True)
        count = len(captured.program.operations)
        wanted = jax.jit(jax.value_and_grad(function))(W, X)
        for cuts in ((count // 2,), tuple(range(0, count - 1, 2))):
            for policy in ("nothing", "products"):
                run = recomputing(captured, Recompute(cuts, len(cuts), policy, loops=True))
                given = jax.jit(jax.value_and_grad(run))(W, X)
                assert jax.tree.all(
                    jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-5, atol=1e-7)), given, wanted)
                )


def test_a_branch_on_a_value_is_refused_with_its_line() -> None:
    def branch(p: Any, x: Any) -> Any:
        return x if x.sum() > 0 else p["w"]

    with pytest.raises(CaptureError, match=r"test_jax\.py"):
        capture(branch, (W, X))


def chain(p: Any, x: Any) -> Any:
    for wide, narrow in p:
        x = x + jax.nn.gelu(x @ wide) @ narrow
    return x


def chain_step(rows: int = 2048, layers: int = 5) -> Step:
    keys = jax.random.split(jax.random.key(0), layers)
    weights = [(jax.random.normal(k, (64, 512)) / 8, jax.random.normal(k, (512, 64)) / 99) for k in keys]
    return Step(chain, (weights, jnp.ones((rows, 64))), loss=lambda y: (y**2).sum())


def test_a_budget_below_what_plain_compiling_takes_is_kept() -> None:
    step = jax_step(chain_step())
    plain = fit_step(step, 2**40)
    assert plain.recompute.count == 0
    budget = int(plain.compiled.peak * 0.75)
    choice = fit_step(step, budget)
    assert choice.compiled.peak <= budget
    assert choice.recompute.count
    given, wanted = choice.compiled.call(*step.arguments()), plain.compiled.call(*step.arguments())
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4, atol=1e-6)), given, wanted))
    with pytest.raises(BudgetError) as refused:
        fit_step(step, 1000)
    assert 1000 < refused.value.needed <= plain.compiled.peak


def test_the_command_fits_verifies_and_writes_a_recipe(tmp_path: Path) -> None:
    from memfit.api.fitted import fit, fit_target

    target, settings = f"{__file__}:chain_step", {"rows": 4096}
    plain = fit_target(target, "100GiB", settings=settings, recipe=str(tmp_path / "a.json"), steps=2, verify=False)
    assert plain.levers == ()
    assert plain.baseline.measured_peak is None  # neither verified nor needed for a budget in bytes
    budget = int(plain.fitted.projected_peak * 0.75)
    report = fit_target(target, budget, settings=settings, recipe=str(tmp_path / "b.json"), steps=2)
    assert report.fitted.projected_peak <= budget
    assert report.fitted.measured_peak is not None
    assert report.fitted.measured_peak <= budget
    assert report.verified["budget"]["ok"]
    assert "recompute" in {lever.name for lever in report.levers}
    assert (tmp_path / "b.json").is_file()
    step = chain_step(**settings)
    assert framework_of(step) == "jax"
    loss, _ = fit(step, budget)()
    assert np.isfinite(float(loss))


def relu_layer(x: Any, w: Any) -> Any:
    return jax.nn.relu(x @ w)


@pytest.mark.parametrize(
    "model",
    [multilayer, jax.jit(multilayer), partial(multilayer, W), lambda p, x: relu_layer(x, p["w"]).sum()],
    ids=["function", "jitted", "partial", "through another"],
)
def test_a_step_on_numpy_arrays_is_told_by_what_its_function_calls(model: Any) -> None:
    assert framework_of(Step(model, (W, X))) == "jax"
    assert framework_of(Step(lambda p, x: x @ p["w"], (W, X))) == "torch"  # nothing tells


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(TargetError, match="not one number"):
        jax_step(Step(chain, chain_step().inputs, train=True))


TARGET = """
import jax, jax.numpy as jnp
def model(params, x):
    for p in params:
        x = x + jnp.tanh(x @ p["a"]) @ p["b"]
    return x
def shaped(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)
def parameters(width):
    return [{"a": shaped(width, 4 * width), "b": shaped(4 * width, width)} for _ in range(3)]
def train(batch=16, width=64):
    inputs = {"params": parameters(width), "x": shaped(batch, width)}
    return {"model": model, "inputs": inputs, "loss": lambda y: (y**2).mean()}
def infer():
    (b,) = jax.export.symbolic_shape("batch")
    return model, (parameters(64), jax.ShapeDtypeStruct((b, 64), jnp.float32))
"""


def test_predict_and_plan_read_a_function_of_jax(tmp_path: Path) -> None:
    from memfit.api.planning import plan
    from memfit.api.prediction import predict

    file = tmp_path / "steps_of_jax.py"
    file.write_text(TARGET)
    report = predict(f"{file}:train")
    parameters = 3 * 2 * 64 * 256 * 4
    assert report.categories["parameters"] >= parameters
    assert report.categories["gradients"] > parameters // 2
    assert report.peak.allocated >= 2 * parameters  # the compiler's: arguments and results
    assert "steps_of_jax.py" in report.at.line
    with pytest.raises(TargetError, match="batch"):
        predict(f"{file}:infer")
    small, large = (predict(f"{file}:infer", bound={"batch": n}).peak.live for n in (8, 64))
    assert large - small == 56 * 64 * 4 * 7  # the input, what is carried, the wide value (4), its product
    assert plan(f"{file}:infer", bound={"batch": 8}, time_limit=1).best.peak > 0
    found = predict(f"{file}:train", budget=2 * report.peak.allocated, find_batch="batch").largest_batch
    assert found is not None
    assert found["value"] > 16


BAD = """
import jax, jax.numpy as jnp, numpy as np
X = np.ones((4, 8), np.float32)
def callback():
    return (lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((4, 8), jnp.float32), x) + jnp.ones(8)), X
def unregistered():
    return (lambda x: jnp.linalg.svd(x)), X
def optimizer():
    return {"model": lambda w, x: jnp.sum(x @ w), "inputs": (jnp.ones((8, 8)), X), "optimizer": "adam"}
def key():
    return (lambda k: jax.random.normal(k, (3,)) + jnp.ones(3)), jax.random.key(0)
"""


def test_what_cannot_be_written_or_stepped_is_one_message(tmp_path: Path, capsys: Any) -> None:
    from memfit.cli.main import main

    file, output = tmp_path / "bad_steps_of_jax.py", tmp_path / "model.bin"
    file.write_text(BAD)
    for name, text in (
        ("callback", "cannot write"),
        ("unregistered", "cannot write"),
        ("optimizer", "init and update"),
    ):
        assert main(["optimize", f"{file}:{name}", "--output", str(output)]) == 2
        said = capsys.readouterr().err
        assert text in said
        assert "bug of memfit" not in said
        assert not output.exists()
    assert main(["optimize", f"{file}:key"]) == 0
    capsys.readouterr()
    for command in ("profile", "lint"):
        assert main([command, f"{file}:callback"]) == 2
        assert "a step of JAX" in capsys.readouterr().err
