"""The description of a machine: what the system says, what is refused, what goes to a file and back."""

from __future__ import annotations

import json
import os

import pytest

from memfit.cli.main import main
from memfit.errors import MachineError
from memfit.machine.cache import CacheLevel, Hierarchy, hierarchy_of, parse_hierarchy
from memfit.machine.probe import _half, _judged
from memfit.machine.spec import load_machine, machine_from_json, ready_machines, system_machine
from memfit.machine.system import SystemCache, numa_nodes, system_caches


def _sysfs(root, rows):
    for number, (level, kind, size, ways, shared) in enumerate(rows):
        folder = root / "cpu" / "cpu0" / "cache" / f"index{number}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size), ("ways_of_associativity", ways),
                           ("coherency_line_size", "64"), ("shared_cpu_list", shared)):  # fmt: skip
            (folder / name).write_text(f"{text}\n")


def test_what_the_system_says(tmp_path):
    rows = [(1, "Data", "48K", 12, "0"), (1, "Instruction", "32K", 8, "0"), (2, "Unified", "1024K", 16, "0"),
            (3, "Unified", "32768K", 16, "0-3,8-11")]  # fmt: skip
    _sysfs(tmp_path, rows)
    found = system_caches(tmp_path)
    assert found == (
        SystemCache("L1", 48 << 10, 12, 64, 1), SystemCache("L2", 1 << 20, 16, 64, 1), SystemCache("L3", 32 << 20, 16, 64, 8)
    )  # fmt: skip
    assert system_machine(found).hierarchy().levels[0].sets == 64


def test_a_system_that_says_nothing(tmp_path):
    assert system_caches(tmp_path) == ()
    assert numa_nodes(tmp_path) == ()
    with pytest.raises(MachineError, match="says nothing of its caches"):
        system_machine(())


def test_ways_that_no_cache_can_have_are_brought_down(tmp_path):
    _sysfs(tmp_path, [(1, "Data", "48K", 7, "0"), (2, "Unified", "1000K", 16, "0"), (3, "Unified", "junk", 16, "0")])
    found = system_caches(tmp_path)
    assert [cache.name for cache in found] == ["L1", "L2"]
    machine = system_machine(found)
    assert [level.ways for level in machine.caches] == [6, 16]
    assert machine.hierarchy().levels[0].sets == 128
    assert "7 ways" in machine.notes[0]
    assert system_machine((SystemCache("L1", 64 * 5, None, 64, 1),)).caches[0].ways is None


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no processors to choose from")
def test_one_core_of_a_system_that_says_nothing(monkeypatch, capsys):
    """The command measures alone, and what it found can be simulated; where nothing is measured, that is said once."""
    monkeypatch.setattr("memfit.machine.probe.system_caches", lambda: ())
    monkeypatch.setattr("memfit.machine.spec.system_caches", lambda: ())
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert main(["machine", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        assert data["processors"] == 1
        assert any("measured alone" in note for note in data["notes"])
        assert all(level["agrees"] is None for level in data["levels"])
        assert machine_from_json(data, "here").hierarchy().levels[0].bytes >= 8 << 10
        assert main(["locality", "transpose:40", "--no-prove"]) == 2
        assert "--machine here.json" in capsys.readouterr().err
        assert main(["machine", "--no-measure"]) == 2
        assert "says nothing of its caches" in capsys.readouterr().err
        assert main(["locality", "transpose:40", "--no-prove", "--cache", "4KiB/4,64KiB/8"]) == 0
        assert main(["locality", "transpose:40", "--prove", "--machine", "amd-zen3"]) == 0
    finally:
        os.sched_setaffinity(0, allowed)


def test_ready_descriptions_are_whole():
    ready = ready_machines()
    assert len(ready) >= 8
    for machine in ready.values():
        assert machine.memory is not None
        assert len(machine.hierarchy().levels) == 3
    assert load_machine("amd-zen5").hierarchy() == parse_hierarchy("48KiB/12,1MiB/16,32MiB/16")


def test_a_file_and_back(tmp_path):
    machine = ready_machines()["intel-skylake-server"]
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(machine.to_json()))
    assert load_machine(str(path)).levels == machine.levels


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("48KiB", "no level"),
        ("50000/12", "no multiple of 12 ways x 64"),
        ("0/8", "size"),
        ("32KiB/0", "positive"),
        ("48KiB/12/plru", "power of two"),
        ("32KiB/8/clock", "no replacement policy"),
        ("much/8", "much"),
        ("9999999TiB/16", "sets are more"),
    ],
)
def test_caches_that_cannot_be(text, why):
    with pytest.raises(MachineError, match=why):
        parse_hierarchy(text)


def test_hierarchies_that_cannot_be():
    with pytest.raises(MachineError, match="different sizes"):
        Hierarchy((CacheLevel("L1", 1024, 2, 64), CacheLevel("L2", 4096, 2, 128)))
    with pytest.raises(MachineError, match="exclusive"):
        Hierarchy((CacheLevel("L1", 1024, 2, prefetch="next-line"),), "exclusive")
    with pytest.raises(MachineError, match="0 levels"):
        Hierarchy(())
    with pytest.raises(MachineError, match="needs bytes and ways"):
        hierarchy_of([{"name": "L1", "bytes": 1024}])


def test_sizes_that_are_no_power_of_two_are_taken():
    level = CacheLevel("L3", 27 * 1024 * 1024 + 512 * 1024, 11)
    assert level.sets == 40960
    assert CacheLevel("odd", 3 * 5 * 64, 3).sets == 5


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"levels": 3}', '{"levels": [{"name": "L1"}]}', '{"levels":[{"name":"L1","bytes":1000,"ways":8}]}'],
)
def test_damaged_files(tmp_path, content, capsys):
    path = tmp_path / "machine.json"
    path.write_text(content)
    assert main(["machine", str(path)]) == 2
    assert "memfit: cannot describe the machine" in capsys.readouterr().err


def test_disagreement_is_said():
    notes: list[str] = []
    told = SystemCache("L2", 8 << 20, 16, 64, 1)
    level = _judged("L2", (500_000, 540_000), None, 3.0, [1.0, 1.0, 1.0], told, 64, notes)
    assert level.agrees is False
    assert level.bytes < 600_000
    assert "the system says 8388608" in notes[0]
    notes.clear()
    level = _judged(
        "L1", (31 << 10, 33 << 10), 8, 1.0, [1.0, 1.0, 1.0], SystemCache("L1", 32 << 10, 8, 64, 1), 64, notes
    )
    assert (level.agrees, level.bytes, notes) == (True, 32 << 10, [])


def test_the_middle_of_a_curve_is_not_moved_by_a_noisy_point():
    sizes = [100, 200, 300, 400, 500]
    assert _half(sizes, [1.0, 1.0, 2.0, 3.0, 3.0], 2.0) == 300
    assert _half(sizes, [1.0, 9.0, 2.0, 3.0, 3.0], 2.0) == 300


def test_the_command_answers_with_the_promised_keys(capsys):
    assert main(["machine", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {"levels", "devices", "page_bytes", "numa"} <= set(data)
    assert {"name", "bytes", "ways", "line", "latency_ns", "bandwidth"} <= set(data["levels"][0])
    assert data["levels"][0]["latency_ns"] < data["levels"][-1]["latency_ns"]
    assert machine_from_json(data, "here").hierarchy().levels[0].name == "L1"
    assert main(["machine", "no-such-machine", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "MachineError"
