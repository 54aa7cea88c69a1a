"""The leak cases: each says of itself what a reader and a benchmark need, really grows, and `memfit leaks` names its holder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import manifest

from memfit.cli.main import COMMANDS

ALL = manifest.cases()
NAMES = [case.name for case in ALL]
QUICK = (
    "array_slices", "cached_method", "private_channels", "waiting_tasks", "validation_losses",
    "fine_bounded_lru_cache", "fine_allocator_retention",
)  # fmt: skip
PEER = Path(__file__).parents[2] / "benchmarks" / "peers" / "leaks.py"


def printed(*command: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, env=environment)
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_there_are_enough_of_every_kind() -> None:
    leaks = [case for case in ALL if not case.fine]
    assert len(leaks) >= 32
    assert len(ALL) - len(leaks) >= 14
    assert {case.kind for case in leaks} == set(manifest.KINDS)


@pytest.mark.parametrize("case", ALL, ids=NAMES)
def test_a_case_is_a_plain_script_that_says_what_it_is(case: manifest.Case) -> None:
    text = case.path.read_text()
    assert "memfit" not in text
    assert re.search(r"range\(steps\)", text), "peers look in at its steps"
    assert case.fine or re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", case.source), case.source
    re.compile(case.holder)
    compile(text, case.name, "exec")


@pytest.mark.parametrize("broken", ["source", "holder", "kind", "born"])
def test_a_case_that_does_not_say_it_is_refused(tmp_path: Path, broken: str) -> None:
    text = (manifest.HERE / "array_slices.py").read_text()
    changed = {
        "source": text.replace("source:", "origin:"), "holder": text.replace("holder: heads", "holder: none"),
        "kind": text.replace("kind: view", "kind: vue"), "born": text.replace(manifest.BIRTH_MARK, ""),
    }[broken]  # fmt: skip
    path = tmp_path / "array_slices.py"
    path.write_text(changed)
    with pytest.raises(ValueError, match=r"array_slices\.py"):
        manifest.read(path)


@pytest.mark.parametrize(
    ("name", "grows"), [("array_slices", True), ("native_results", True), ("fine_bounded_lru_cache", False)]
)
def test_what_is_said_to_grow_does(name: str, grows: bool) -> None:
    case = next(case for case in ALL if case.name == name)
    grown = printed(str(PEER), "resident", str(case.path), str(case.steps))["bytes"]
    assert (grown > 1 << 20) == grows


@pytest.mark.skipif("leaks" not in COMMANDS, reason="there is no command `memfit leaks` yet")
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow) for case in ALL]
)
def test_the_holder_is_named_and_look_alikes_are_not_flagged(case: manifest.Case) -> None:
    if case.missing():
        pytest.skip(f"needs {', '.join(case.missing())}")
    run = "import sys; from memfit.cli.main import main; sys.exit(main())"
    said = printed("-c", run, "leaks", "--json", str(case.path), str(case.steps))
    if case.fine:
        assert said["leaking"] is not True, said["findings"]
        return
    assert said["leaking"] is True
    holders = [
        re.sub(r"[\w/.-]*\.py:\d+", "", str(one["holder"])) for one in said["findings"][:3]
    ]  # a file's name is none
    assert any(re.search(case.holder, holder, re.IGNORECASE) for holder in holders), said["findings"]
