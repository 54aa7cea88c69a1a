"""Tables of buffers: MiniMalloc's columns both ways, and one error with its line for whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from memfit.api.planning import plan
from memfit.errors import ProblemError
from memfit.planners.problem import Memory, Piece, Placement, Problem
from memfit.planners.table import parse_table, read_table, table_text
from memfit.testing.problems import problems

PLAIN = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\n"


def parsed(header: str, *rows: str) -> Problem:
    return parse_table("\n".join([header, *rows]) + "\n", "t.csv")


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "buffer,start,upper,size\nb1,0,3,4\nb2,3,9,4\n",
        "buffer_id,begin,upper,size\nb1,0,3,4\nb2,3,9,4\n",
        "size,upper,lower,id\n4,3,0,b1\n4,9,3,b2\n",
        "id,start,end,size\nb1,0,2,4\nb2,3,8,4\n",
        "\ufeffID, Lower ,upper,size\r\nb1,0,3,4\r\n\r\nb2,3,9,4",
        '"id","lower","upper","size"\n"b1",0,3,4\nb2,3,9, 4\n',
    ],
)
def test_every_way_to_write_the_same_table(text: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8", newline="")
    problem = read_table(path)
    assert problem.ids == ("b1", "b2")
    assert (problem.lower.tolist(), problem.upper.tolist(), problem.size.tolist()) == ([0, 3], [3, 9], [4, 4])
    assert problem.capacity is None
    assert table_text(problem) == PLAIN


@pytest.mark.parametrize(
    ("name", "capacity"), [("A.1048576.csv", 1048576), ("a.12.CSV", 12), ("a.csv", None), ("a.0.csv", None)]
)
def test_the_capacity_stands_in_the_files_name(tmp_path: Path, name: str, capacity: int | None) -> None:
    (tmp_path / name).write_text(PLAIN)
    assert read_table(tmp_path / name).capacity == capacity


def test_alignment_hint_pin_and_label() -> None:
    problem = parsed("id,lower,upper,size,alignment,hint,offset,label", "a,0,2,100,64,5,128,first", "b,0,2,10,,-1,,")
    assert problem.alignment.tolist() == [64, 1]
    assert problem.offset.tolist() == [128, -1]
    assert problem.meta["hint"].tolist() == [5, -1]
    assert problem.labels == ("first", "")


def test_gaps_and_windows() -> None:
    rows = ("a,0,10,20,2-4 6-8@5:9", "b,0,10,20,", "c,0,10,20,0-5 9-10")
    problem = parsed("id,lower,upper,size,gaps", *rows)
    assert problem.pieces == {
        0: (Piece(0, 2, 0, 20), Piece(4, 6, 0, 20), Piece(6, 8, 5, 9), Piece(8, 10, 0, 20)),
        2: (Piece(5, 9, 0, 20),),
    }
    assert table_text(problem) == "id,lower,upper,size,gaps\n" + "\n".join(rows) + "\n"
    inclusive = parsed("id,start,end,size,gaps", "a,0,9,20,2-3 6-7@5:9")
    assert inclusive.pieces[0] == problem.pieces[0]


def test_memories_pairs_and_dynamic_sizes() -> None:
    problem = parsed(
        "id,lower,upper,size,upper_size,expected,memory,same,in_place",
        "a,0,2,100,400,90,dram,,", "b c,0,2,10,,,,a,", "d,1,3,10,20,,sram,a,b c",
    )  # fmt: skip
    assert problem.size.tolist() == [400, 10, 20]
    assert problem.expected is not None
    assert problem.expected.tolist() == [90, 10, 10]
    assert problem.memories == (Memory("dram"), Memory("sram"))
    assert problem.memory.tolist() == [0, -1, 1]
    assert problem.same == ((0, 1), (0, 2))
    assert problem.in_place == ((1, 2),)


def test_a_column_that_means_nothing_is_left_out_and_told() -> None:
    assert parsed("id,lower,upper,size,colour", "a,0,1,2,red").meta["ignored_columns"] == ("colour",)


WRONG = [
    ("", "", "cannot plan t.csv: it is empty"),
    ("id,lower,upper,size", "", "t.csv: it has a header and no buffer; was the file cut off?"),
    ("hello world", "1", "t.csv line 1: it is no header"),
    ("id,lower,upper,size", "a,0,3,4\nb,3,9", "t.csv line 3: it has 3 fields, the header has 4; the file ends in the middle"),
    ("id,lower,upper,size", "a,0,3\nb,3,9,4", "t.csv line 2: it has 3 fields, the header has 4; each row has one field"),
    ("id,lower,upper,size", "a,0,3,4,5", "t.csv line 2: it has 5 fields"),
    ("id,lower,upper,size", "a,3,3,4", "line 2: its lifetime [3, 3) is empty"),
    ("id,lower,upper,size", "a,0,1,1\nb,9,3,4", "line 3: its lifetime [9, 3) is reversed"),
    ("id,start,end,size", "a,5,4,4", "line 2: its end 4 is before its start 5"),
    ("id,lower,upper,size", "a,0,3,0", "line 2: size 0 is no size"),
    ("id,lower,upper,size", "a,0,3,-4", "line 2: size -4 is no size"),
    ("id,lower,upper,size", "a,0,3,4.5", "line 2: size '4.5' is no whole number"),
    ("id,lower,upper,size", "a,0,3,4_0", "line 2: size '4_0' is no whole number"),
    ("id,lower,upper,size", "a,0,3,", "line 2: size '' is no whole number"),
    ("id,lower,upper,size", "a,0,x,1", "line 2: upper 'x' is no whole number"),
    ("id,lower,upper,size", "a,0,3,99999999999999999999", "does not fit 64 bits; write it in a larger unit"),
    ("id,lower,upper,size", "a,0,3," + "9" * 5000, "does not fit 64 bits"),
    ("id,lower,upper,size", "a,0,3,9000000000000000000", "is 10^12 bytes or more"),
    ("id,lower,upper,size", "a,0,9000000000000000000,1", "line 2: upper 9000000000000000000 is further from zero"),
    ("id,lower,upper,size", "a,0,3,4\nb,1,2,3\na,0,1,1", "line 4: id 'a' stands in line 2 already"),
    ("id,lower,upper,size", ",0,3,4", "line 2: it has no id"),
    ("id,lower,upper,szie", "a,0,3,4", "line 1: there is no column 'szie'; did you mean 'size'?"),
    ("id,lower,upper,size,aligment", "a,0,3,4,1", "did you mean 'alignment'?"),
    ("id,lower,size", "a,0,3", "line 1: no column 'upper'; it has id,lower,size"),
    ("id,lower,start,upper,size", "a,0,0,3,4", "two columns mean 'lower': 'lower' and 'start'"),
    ("id,lower,upper,size,alignment", "a,0,3,4,0", "alignment 0 is no alignment"),
    ("id,lower,upper,size,offset", "a,0,3,4,-7", "offset -7 is no offset"),
    ("id,lower,upper,size,alignment,offset", "a,0,3,4,64,32", "offset 32 is no multiple of the buffer's alignment"),
    ("id,lower,upper,size,gaps", "a,0,9,4,1to2", "'1to2' is no gap"),
    ("id,lower,upper,size,gaps", "a,0,9,4,5-12", "gap 5-12 is reversed, empty or outside the lifetime [0, 9)"),
    ("id,lower,upper,size,gaps", "a,0,9,4,5-6@2:9", "keeps bytes that are not within the buffer's 4"),
    ("id,lower,upper,size,gaps", "a,0,9,4,2-5 4-6", "its gaps overlap at 4"),
    ("id,lower,upper,size,gaps", "a,0,9,4,0-9", "its gaps leave no instant"),
    ("id,lower,upper,size,same", "a,0,9,4,b", "same names 'b', and there is no buffer of that id"),
    ("id,lower,upper,size,in_place", "a,0,9,4,a", "in_place names the buffer itself"),
    ("id,lower,upper,size,upper_size", "a,0,9,4,3", "upper_size 3 is below the buffer's size"),
    ("id,lower,upper,size,expected", "a,0,9,4,5", "expected 5 is not within 0 and the buffer's largest size"),
    ("id,lower,upper,size", 'a,0,3,"4', "it is no CSV"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "rows", "text"), WRONG, ids=[text[-30:] for _, _, text in WRONG])
def test_what_is_wrong_is_one_error_with_file_and_line(header: str, rows: str, text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        parse_table(header + "\n" + rows + "\n" if header else "", "t.csv")
    assert text in str(caught.value)
    assert "t.csv" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_lines_are_those_of_the_file_where_rows_span_several() -> None:
    with pytest.raises(ProblemError, match="line 6: size 0"):
        parse_table('id,lower,upper,size\n\n"a\nb",0,1,1\n\nc,0,1,0\n', "t.csv")


def test_a_size_of_a_terabyte_is_taken_for_another_unit() -> None:
    assert int(parsed("id,lower,upper,size", "a,0,3,999999999999").size.sum()) == 10**12 - 1
    with pytest.raises(ProblemError, match="line 2: size 1000000000000 is 10\\^12 bytes or more"):
        parsed("id,lower,upper,size", "a,0,3,1000000000000")


@pytest.mark.parametrize(
    ("content", "text"), [(b"\xff\xfe\x00", "is no text"), (b"\x00" * 64, "no header"), (None, "No such file")]
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "x.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProblemError, match=text):
        read_table(path)


def test_any_cut_of_a_table_is_a_table_or_one_error() -> None:
    text = "id,lower,upper,size,gaps\nb1,0,30,44,10-20\nb2,3,9,4,\n"
    for end in range(len(text)):
        found: Problem | ProblemError
        try:
            found = parse_table(text[:end], "t.csv")
        except ProblemError as error:
            found = error
        assert len(found) <= 2 if isinstance(found, Problem) else "t.csv" in str(found)


@settings(max_examples=120, deadline=None)
@given(problems(memories=3))
def test_a_problem_survives_writing_and_reading(problem: Problem) -> None:
    if not len(problem):
        return
    text = table_text(problem)
    back = parse_table(text)
    assert back.ids == problem.ids
    assert sorted(back.same) == sorted(problem.same)
    assert sorted(back.in_place) == sorted(problem.in_place)
    assert all(back.pieces_of(b) == problem.pieces_of(b) for b in range(len(problem)))
    for name in ("lower", "upper", "size", "alignment", "offset"):
        assert getattr(back, name).tolist() == getattr(problem, name).tolist()
    names = [problem.memories[m].name if m >= 0 else "" for m in problem.memory.tolist()]
    assert [back.memories[m].name if m >= 0 else "" for m in back.memory.tolist()] == names
    assert table_text(back) == text


def test_a_placement_is_written_as_offsets_that_pin_when_read() -> None:
    problem = parse_table(PLAIN)
    placement = Placement("by hand", np.array([0, 8]), np.zeros(2, np.int64), 12, 4)
    text = table_text(problem, placement)
    assert text == "id,lower,upper,size,offset\nb1,0,3,4,0\nb2,3,9,4,8\n"
    assert parse_table(text).offset.tolist() == [0, 8]


def test_a_last_row_without_line_end_is_noted(tmp_path: Path) -> None:
    for end, noted in (("\n", False), ("\r\n", False), ("", True)):
        path = tmp_path / "cut.csv"
        path.write_bytes(f"id,lower,upper,size\na,0,4,100\nb,2,6,10{end}".encode())
        notes = plan(path).notes
        assert any("no line end" in note for note in notes) is noted
