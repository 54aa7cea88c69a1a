"""`memfit locality` and `memfit.locality`: patterns, files of loops, traces, what is refused and what is claimed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import memfit
from memfit.analyses.cache_misses import misses_of_nest
from memfit.analyses.miss_reasons import lower_bound_lines
from memfit.analyses.patterns import parse_pattern
from memfit.api.locality_advice import proved
from memfit.cli.main import main
from memfit.errors import MachineError, NestError
from memfit.fitting.loop_search import candidates, search
from memfit.fitting.timed_kernel import Timed, find_compiler, time_variants
from memfit.ir.kernel import Variant, lower, original
from memfit.ir.kernel_of_nest import kernel_of_nest
from memfit.ir.nest_source import nest_from_source
from memfit.machine.cache import parse_hierarchy
from memfit.machine.spec import load_machine
from memfit.report.locality_page import locality_page
from memfit.report.locality_summary import AdviceRow, LevelRow, LocalityReport, locality_headline

CACHE = "4KiB/4,32KiB/8"
LOOPS = "for i in range(N):\n  for j in range(N):\n    for k in range(N):\n      C[i, j] += A[i, k] * B[k, j]\n"
ZEN = load_machine("amd-zen3")


def _json(capsys, *arguments):
    assert main(["locality", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "pattern",
    ["matmul:24", "conv:4,10,10,4,3", "conv:4,10,10,4,3,nhwc", "conv:8,8,8,8,3,nchw8", "attention:24,8", "reduction:40",
     "reduction:40,30,1", "transpose:40", "elementwise:5000", "gather:500,16,300"],
)  # fmt: skip
def test_every_pattern_answers_with_the_promised_keys(pattern, capsys):
    found = _json(capsys, pattern, "--cache", CACHE, "--machine", "amd-zen3", "--no-prove")
    assert {"levels", "lower_bound_lines", "advice", "reasons", "curve"} <= set(found)
    for level in found["levels"]:
        assert {"name", "accesses", "misses", "by_array"} <= set(level)
        assert sum(level["by_array"].values()) == level["misses"] <= level["accesses"]
    for row in found["reasons"]:
        assert row["cold"] + row["capacity"] + row["conflict"] == row["misses"]
    assert 0 < found["lower_bound_lines"] <= found["levels"][0]["misses"]
    for advice in found["advice"]:
        assert {"change", "misses", "projected_speedup", "measured_speedup"} <= set(advice)
        assert advice["measured_speedup"] is None
    ratios = [point["miss_ratio"] for point in found["curve"]]
    assert ratios == sorted(ratios, reverse=True)


def test_columns_are_blamed_and_turned():
    report = memfit.locality("reduction:512", machine=ZEN)
    row = next(r for r in report.reasons if (r.array, r.level) == ("A", "L2"))
    assert row.word == "stride"
    assert row.sets == 32
    assert report.advice[0].change.startswith("order i j")
    assert report.advice[0].over_bound == pytest.approx(1.0, abs=0.01)
    assert report.over_bound == pytest.approx(16, rel=0.05)


def test_a_nest_from_python():
    nest = memfit.locality.nest(
        [("i", 20), ("j", 30)],
        [("A", "r", ["i", "2*j+1"]), ("B", "w", ["j", "i"])],
        {"A": {"shape": (20, 60), "leading": 64}, "B": (30, 20)},
    )
    report = memfit.locality(nest, cache=CACHE, advise=False)
    assert report.accesses == 1200
    assert report.levels[0].by_array["A"] == 20 * 4
    kernel = kernel_of_nest(nest)
    assert kernel is not None
    assert kernel.combine == "copy"


def test_a_file_of_loops(tmp_path, capsys):
    path = tmp_path / "product.py"
    path.write_text("N = 8\n" + LOOPS)
    small = _json(capsys, str(path), "--cache", CACHE, "--no-prove")
    assert small["accesses"] == 4 * 8**3
    large = _json(capsys, str(path), "--cache", CACHE, "--no-prove", "--set", "N=32")
    assert large["accesses"] == 4 * 32**3
    assert set(large["levels"][0]["by_array"]) == {"A", "B", "C"}


def test_loops_that_are_no_kernel_are_analysed_only():
    report = memfit.locality("for i in range(40):\n  for j in range(i):\n    A[i, j] = X[j]\n", cache=CACHE)
    assert report.advice == ()
    assert any("no single statement" in note for note in report.notes)


def test_what_a_kernel_is():
    kernel = kernel_of_nest(nest_from_source(LOOPS, None, {"N": 8}))
    assert kernel is not None
    assert kernel.reductions == {"k"}
    assert kernel.combine == "product"
    for source in (
        "for i in range(9):\n  A[i] = B[i]\n  C[i] = B[i]\n",  # two statements
        "for i in range(9, 0, -1):\n  A[i] = B[i]\n",  # runs down
        "for i in range(8):\n  A[i] = A[i + 1]\n",  # an order that matters
    ):
        assert kernel_of_nest(nest_from_source(source)) is None


def test_loops_that_begin_elsewhere_are_kernels():
    source = "for i in range(1, 20, 3):\n  for j in range(2, 30):\n    B[j, i] = A[i - 1, j + 1] + A[i + 1, 2 * j]\n"
    nest = nest_from_source(source)
    kernel = kernel_of_nest(nest)
    assert kernel is not None
    assert kernel.loops == (("i", 7), ("j", 28))
    levels = parse_hierarchy("1KiB/2,4KiB/4")
    assert misses_of_nest(lower(kernel, original(kernel)), levels).levels == misses_of_nest(nest, levels).levels
    if any(map(shutil.which, ("c++", "g++", "clang++"))):
        time_variants(kernel, [original(kernel), Variant(("j", "i"), (("j", 5),))], rounds=3, budget=0.0)


def test_a_recorded_trace(tmp_path, capsys):
    draw = np.random.default_rng(0)
    addresses = draw.integers(4096, 1 << 18, 5000)
    np.save(tmp_path / "plain.npy", addresses)
    plain = _json(capsys, str(tmp_path / "plain.npy"), "--cache", CACHE)
    assert plain["accesses"] == 5000
    assert plain["advice"] == []
    np.savez(
        tmp_path / "named.npz", addresses=addresses, writes=draw.integers(0, 2, 5000), low=np.array([4096, 1 << 17])
    )
    named = _json(capsys, str(tmp_path / "named.npz"), "--cache", CACHE)
    assert [level["misses"] for level in named["levels"]] == [level["misses"] for level in plain["levels"]]
    assert set(named["levels"][0]["by_array"]) == {"low", "other"}
    assert named["levels"][0]["write_backs"] > 0
    columns = np.stack([addresses, addresses % 2], axis=1)
    np.save(tmp_path / "columns.npy", columns)
    assert _json(capsys, str(tmp_path / "columns.npy"), "--cache", CACHE)["accesses"] == 5000


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("for i in range(9):\n  for j in range(9):\n    A[i * j] = B[i]\n", "not affine"),
        ("for i in range(9):\n  A[i] = B[C[i]]\n", "not affine"),
        ("for i in range(9):\n  for j in range(0):\n    A[i] = B[i, j]\n", "never runs"),
        ("for i in range(10**12):\n  A[i] = B[i]\n", "not affine"),
        ("for i in range(1000000000000):\n  A[1000000 * i] = B[i]\n", "bytes can be simulated"),
        ("x = 3\n", "accesses no array"),
        ("while True: pass\n", "kind While"),
        ("for i in range(\n", "no Python"),
        ("for i in range(M):\n  A[i] = 0\n", "--set M=NUMBER"),
    ],
)
def test_loops_that_are_refused(tmp_path, source, why, capsys):
    path = tmp_path / "loops.py"
    path.write_text(source)
    assert main(["locality", str(path)]) == 2
    error = capsys.readouterr().err
    assert why in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["matmul:0"], "sizes are positive"),
        (["matmul:1,2,3,4"], "do not fit"),
        (["matmul:99999999999"], "too large"),
        (["conv:3,2,2,4,3"], "smaller than images"),
        (["conv:3,8,8,4,3,nwhc"], "no layout"),
        (["conv:3,8,8,4,3,nchw8"], "multiples of 8"),
        (["reduction:5,5,7"], "axis"),
        (["gather:0"], "positive"),
        (["gather:9,9,9,9"], "4 sizes"),
        (["no-such-thing"], "neither a pattern nor a"),
        (["none.npy"], "no such file"),
        (["matmul:64", "--cache", "48KiB/7"], "no multiple of 7 ways"),
        (["matmul:64", "--cache", "48KiB"], "no level"),
        (["matmul:64", "--machine", "nobody"], "no ready description"),
    ],
)
def test_arguments_that_are_refused(arguments, why, capsys):
    assert main(["locality", *arguments]) == 2
    assert why in capsys.readouterr().err


ARRAYS = {"A": (10, 10), "B": (10,)}


@pytest.mark.parametrize(
    ("loops", "access", "arrays", "why"),
    [
        ([("i", 10), ("j", 10)], ("A", "r", ["i*j", "j"]), ARRAYS, "not affine"),
        ([("i", 10)], ("A", "r", ["i//2", "i%3"]), ARRAYS, "not affine"),
        ([("i", 10)], ("A", "r", ["B[i]", "i"]), ARRAYS, "not affine"),
        ([("i", 10)], ("B", "r", ["i; j"]), ARRAYS, "no Python"),
        ([("i", 10)], ("B", "r", ["q"]), ARRAYS, "neither a loop"),
        ([("i", 10)], ("B", "r", ["i+1"]), ARRAYS, "from 1 to 10"),
        ([("i", 10)], ("A", "r", ["i"]), ARRAYS, "2 dimensions"),
        ([("i", 10)], ("C", "r", ["i"]), ARRAYS, "no array 'C'"),
        ([("i", 10)], ("B", "x", ["i"]), ARRAYS, "the access"),
        ([("i", 10)], ("B", "r"), ARRAYS, "the access"),
        ([("i", 10)], ("B", "r", ["i"], 2), ARRAYS, "the access"),
        ([("i", 10), ("i", 10)], ("B", "r", ["i"]), ARRAYS, "are called i"),
        ([("i", "ten")], ("B", "r", ["i"]), ARRAYS, "whole extents"),
        ([("i", 2.5)], ("B", "r", ["i"]), ARRAYS, "whole extents"),
        ([("i", 0)], ("B", "r", ["i"]), ARRAYS, "never runs"),
        ([("i", -5)], ("B", "r", ["i"]), ARRAYS, "never runs"),
        ([("i", 1 << 70)], ("B", "r", ["0"]), ARRAYS, "beyond 60 bits"),
        ([("i", 1 << 50)], ("B", "r", ["0"]), ARRAYS, "are allowed"),
        ([("i", 10)], ("B", "r", ["i"]), {"B": {"shape": (1 << 62,)}}, "can be simulated"),
        ([("i", 10)], ("B", "r", ["i"]), {"B": {"shape": (10,), "base": 1 << 62}}, "can be simulated"),
        ([("i", 10)], ("B", "r", ["i"]), {"B": {"shape": (10,), "item": 3}}, "items of 3"),
        ([("i", 10)], ("B", "r", ["i"]), {"B": {"shape": (0,)}}, "extents are positive"),
        ([("i", 10)], ("B", "r", ["i"]), {"B": {"shape": (10,), "width": 3}}, "with width"),
    ],
)
def test_nests_that_are_refused(loops, access, arrays, why):
    with pytest.raises(NestError, match=why):
        memfit.locality.nest(loops, [access], arrays)


def test_a_nest_without_accesses_is_refused():
    with pytest.raises(NestError, match="accesses no array"):
        memfit.locality.nest([("i", 10)], [], ARRAYS)


@pytest.mark.parametrize(
    ("value", "why"), [("0", "never runs"), ("1" + 30 * "0", "can be simulated"), ("x", "'x'"), ("2.5", "2.5")]
)
def test_numbers_for_names_that_are_refused(tmp_path, value, why, capsys):
    path = tmp_path / "loops.py"
    path.write_text("for i in range(N):\n  A[i] = B[i]\n")
    assert main(["locality", str(path), "--cache", CACHE, "--set", f"N={value}"]) == 2
    assert why in capsys.readouterr().err


def test_downwards_is_the_same_backwards():
    up = memfit.locality("for i in range(0, 90):\n  A[i] = B[i]\n", cache=CACHE, advise=False)
    down = memfit.locality("for i in range(89, -1, -1):\n  A[i] = B[i]\n", cache=CACHE, advise=False)
    assert [level.by_array for level in up.levels] == [level.by_array for level in down.levels]
    with pytest.raises(NestError, match="no number but 0"):
        memfit.locality("for i in range(9, 0, 0):\n  A[i] = B[i]\n", cache=CACHE)
    with pytest.raises(NestError, match="never runs"):
        memfit.locality("for i in range(0, 9, -1):\n  A[i] = B[i]\n", cache=CACHE)


@pytest.mark.parametrize("content", [b"", b"not numbers", b"\x93NUMPY\x01\x00garbage"])
def test_damaged_traces_are_refused(tmp_path, content, capsys):
    path = tmp_path / "trace.npy"
    path.write_bytes(content)
    assert main(["locality", str(path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "NestError"


def test_traces_of_something_else_are_refused(tmp_path):
    for name, array in (("floats", np.ones(3)), ("none", np.zeros(0, np.int64)), ("words", np.array(["a"]))):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(NestError):
            memfit.locality(str(tmp_path / f"{name}.npy"), cache=CACHE)
    np.save(tmp_path / "negative.npy", np.array([-1, 5]))
    with pytest.raises(MachineError, match="not negative"):
        memfit.locality(str(tmp_path / "negative.npy"), cache=CACHE)


def test_caches_of_odd_sizes_are_simulated(capsys):
    found = _json(capsys, "transpose:50", "--cache", "3840/12,27KiB/9", "--no-prove")
    assert found["levels"][0]["misses"] >= found["lower_bound_lines"]


def test_without_a_compiler_nothing_is_claimed(monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MachineError, match="nothing can be timed"):
        find_compiler()
    found = _json(capsys, "transpose:64", "--cache", CACHE)
    assert any("nothing can be timed" in note for note in found["notes"])
    assert all(row["measured_speedup"] is None for row in found["advice"])
    assert main(["locality", "transpose:64", "--prove"]) == 2
    assert "install g++" in capsys.readouterr().err


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")
def test_the_proof_is_part_of_the_answer(tmp_path, capsys):
    page = tmp_path / "page.html"
    found = _json(capsys, "transpose:300", "--cache", CACHE, "--prove", "--html", str(page))
    for row in found["advice"]:
        low, middle, high = row["after_seconds"]
        assert 0 < low <= middle <= high
        apart = high < row["before_seconds"][0] or row["before_seconds"][2] < low
        assert (row["measured_speedup"] is not None) == apart
    text = page.read_text()
    assert "transpose:300" in text
    assert "<script" not in text


def test_no_claim_where_spreads_overlap():
    row = AdviceRow("x", "turn it", {"L1": 1}, 2.0)
    clear = proved(row, Timed(2.0, 1.9, 2.1, 9), Timed(1.0, 0.9, 1.1, 9))
    assert clear.measured_speedup == 2.0
    open_ = proved(row, Timed(2.0, 0.9, 2.1, 9), Timed(1.0, 0.9, 1.1, 9))
    assert open_.measured_speedup is None
    assert "no claim" in open_.measured
    report = LocalityReport("t", "m", 10, (LevelRow("L1", 10, 5, {}, 0),), (), (), 5, 64, (open_,), 0.0)
    assert "nothing faster was proved" in locality_headline(report)


def test_the_page_compares_programs_not_parts():
    whole = AdviceRow("all", "fuse", {"L1": 40}, 2.0, by_array={"L1": {"A": 30, "B": 10}}, curve=((1, 1.0), (4, 0.1)))
    part = AdviceRow("first", "turn", {"L1": 7}, 3.0, whole=False)
    level = LevelRow("L1", 1000, 80, {"A": 60, "B": 20}, 0)
    report = LocalityReport(
        "t", "m", 1000, (level,), (), ((1, 1.0), (8, 0.2)), 10, 64, (whole, part), 0.0, (("L1", 256),)
    )
    text = locality_page(report)
    assert "80 (8 %)" in text
    assert "40 (2.0 x fewer)" in text
    assert ">change 1<" in text
    assert ">change 2<" not in text
    assert "first: turn" in text
    assert text.count("<polyline") == 2
    assert "100 %" in text
    many = tuple(AdviceRow("k", f"turn {n}", {"L1": n}, 2.0) for n in range(40))
    assert "turn 39" in locality_page(LocalityReport("t", "m", 9, (level,), (), (), None, 64, many, 0.0))


def test_names_of_a_user_are_no_markup():
    row = AdviceRow("<b>k</b>", "<i>turn</i>", {"L1": 1}, 2.0)
    report = LocalityReport("<script>", "m", 10, (LevelRow("L1", 10, 5, {}, 0),), (), (), 5, 64, (row,), 0.0)
    text = locality_page(report)
    assert "<script>" not in text
    assert "<i>turn" not in text


def test_the_search_finds_what_trying_everything_finds():
    kernel, levels = parse_pattern("matmul:24")[0], parse_hierarchy("1KiB/4,8KiB/8")
    from memfit.fitting.loop_search import exactly

    fewest = min(exactly(kernel, v, levels, ZEN).misses.levels[0].misses for v in candidates(kernel, 64))
    found = min(f.misses.levels[0].misses for f in search(kernel, levels, ZEN, seconds=20))
    assert found <= 1.5 * fewest
    assert found < exactly(kernel, original(kernel), levels, ZEN).misses.levels[0].misses


def test_a_change_is_named_once_and_above_its_bound():
    report = memfit.locality("attention:96,32", machine=ZEN)
    assert {row.kernel for row in report.advice} >= {"all", "values"}
    assert len({(row.kernel, row.change) for row in report.advice}) == len(report.advice)
    assert all(row.over_bound is not None and row.over_bound >= 1 for row in report.advice)
    assert [row.whole for row in report.advice] == [row.kernel == "all" for row in report.advice]


def test_the_lower_bound_of_a_product():
    kernel = parse_pattern("matmul:512")[0]
    level = parse_hierarchy("48KiB/12").levels[0]
    touched = dict.fromkeys("ABC", 16384)
    assert lower_bound_lines([kernel], level, touched) == 151349
    assert lower_bound_lines([kernel], parse_hierarchy("64MiB/16").levels[0], touched) == 3 * 16384
