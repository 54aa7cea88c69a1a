"""Lengths of what compiled code made, whose method a line calls, and what is named where no name in Python leads."""

from __future__ import annotations

import contextvars
import io
import itertools
import sqlite3
import sys
import weakref
from types import ModuleType

import pytest

from memfit.observe.compiled_containers import contents, length_of, measure, stream_length
from memfit.observe.held_bytes import held_by, newest
from memfit.observe.leak_census import named_sizes
from memfit.observe.line_owners import owner_in_line
from memfit.observe.probes import ArrayProbe, Probes, PythonProbe
from memfit.runtime.living import survey

PROBES = Probes([ArrayProbe(), PythonProbe()])


def measured(thing):
    seen = survey()
    measure(seen)
    return dict(zip(seen.address.tolist(), seen.length.tolist(), strict=True))[id(thing)]


class TestLengths:
    def test_the_items_between_two_branches_of_tee(self):
        ahead, behind = itertools.tee({"number": k} for k in range(1000))
        before = length_of(behind)
        items = [next(ahead) for _ in range(400)]
        assert 400 <= length_of(behind) - before <= 420  # the items, and the blocks they lie in
        assert length_of(ahead) < 70
        assert measured(behind) == length_of(behind)
        assert any(item is items[7] for item in contents(behind))
        assert any(item is items[-1] for item in newest(behind, 100))

    def test_the_variables_of_a_context(self):
        context = contextvars.copy_context()
        before = length_of(context)
        variables = [contextvars.ContextVar(f"v{k}") for k in range(200)]
        for variable in variables:
            context.run(variable.set, bytearray(100))
        assert length_of(context) - before >= 400  # variables and values
        found = PROBES.orphan(context)
        assert found is not None
        assert "contextvars" in found.holder

    def test_a_stream_in_memory(self):
        text, raw = io.StringIO(), io.BytesIO()
        text.write("x" * 5000)
        raw.write(b"x" * 5000)
        assert stream_length(text) == 5000
        assert 5000 <= stream_length(raw) <= 6000
        assert measured(text) == 5000
        assert PROBES.own_bytes(text, set()) == 5000
        text.close()
        raw.close()
        assert stream_length(text) == -1
        assert stream_length(raw) == 0

    def test_a_module_that_is_added_to_a_table_weighs_what_it_defines(self):
        before = survey().address
        module = ModuleType("added")
        module.table = [bytearray(10_000)]
        before.sort()
        assert held_by([module], before, PROBES, set(), ()).nbytes > 10_000
        assert (
            held_by([[module]], before, PROBES, set(), ()).nbytes < 1000
        )  # referred to by something else: not its own


class Node:
    pass


def test_a_proxy_of_what_is_gone_is_not_asked():
    node = Node()
    proxies, names = [weakref.proxy(node)], {"proxy": weakref.proxy(node)}
    del node
    measure(survey())
    assert length_of(proxies[0]) == -1
    assert named_sizes([("names", names), ("proxy", proxies[0])], lambda value: None) == {"names": 1}
    assert held_by([proxies[0], (proxies[0], 1)], survey().address[:0], PROBES, set(), ()).nbytes > 0
    assert newest(names, 3) == [*names.values()]


class TestOwnerOfALine:
    @pytest.fixture
    def said(self, tmp_path, monkeypatch):
        """What is said of the line marked with ``here``, when it is about to run."""

        def run(source, **names):
            path = tmp_path / "program.py"
            path.write_text(source)
            wanted = next(number for number, line in enumerate(source.splitlines(), 1) if "here" in line)
            found = []

            def trace(frame, event, argument):
                if event == "line" and frame.f_lineno == wanted and frame.f_code.co_filename == str(path):
                    found.append(owner_in_line(frame))
                return trace

            old = sys.gettrace()
            sys.settrace(trace)
            try:
                exec(compile(source, str(path), "exec"), {"__name__": "program", **names})
            finally:
                sys.settrace(old)
            return found[0]

        return run

    def test_an_object_that_compiled_code_made(self, said):
        source = "def main():\n    rows = sqlite3.connect(':memory:')\n    rows.execute('select 1')  # here\nmain()\n"
        assert said(source, sqlite3=sqlite3) == ("sqlite3.Connection", "rows.execute()")

    def test_an_attribute_of_an_object_of_one_s_own(self, said):
        source = "class Own: pass\nown = Own()\nown.file = io.BytesIO()\nown.file.write(b'')  # here\n"
        assert said(source, io=io) == ("_io.BytesIO", "own.file.write()")

    def test_a_function_of_a_module(self, said):
        assert said("sys.intern('abc')  # here\n", sys=sys) == ("sys.intern()", "sys.intern()")

    @pytest.mark.parametrize("line", ["kept = []; kept.append(1)  # here", "x = 1  # here", "len([1])  # here",
                                      "class Own:\n  def go(self): pass\nOwn().go()  # here"])  # fmt: skip
    def test_nothing_of_what_is_the_program_s_own(self, said, line):
        assert said(line + "\n") == ("", "")

    def test_no_property_is_asked(self, said):
        source = ("class Own:\n  @property\n  def file(self): asked.append(1); return io.BytesIO()\nown = Own()\n"
                  "own.file.write(b'')  # here\n")  # fmt: skip
        asked = []
        assert said(source, io=io, asked=asked) == ("", "")
        assert len(asked) == 1  # by the program itself
