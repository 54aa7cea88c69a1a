"""Every source becomes the same rows; an interrupted convert goes on; what is damaged is named with its file and byte."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memfit.cli.main import main
from memfit.data import Choices, Dataset, convert
from memfit.data.column_file import HEADER_BYTES
from memfit.errors import DataError, OutputError


def test_an_array_becomes_a_column_whatever_its_orders(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((100, 7))
    for name, array in {"plain": values, "foreign": values.astype(">f8"), "fortran": np.asfortranarray(values)}.items():
        np.save(tmp_path / f"{name}.npy", array)
        data = convert(tmp_path / f"{name}.npy", tmp_path / name)
        assert (data.column(name) == values).all()
        assert data.describe(name).dtype == "f8"
        figures = data.schema.statistics[name]
        np.testing.assert_allclose(figures["mean"], values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(figures["std"], values.std(0), rtol=1e-12)
        assert data.verify() > values.nbytes - 1


def test_an_archive_becomes_columns_of_the_same_rows(tmp_path: Path) -> None:
    images, labels = np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3), np.arange(5)
    np.savez_compressed(tmp_path / "a.npz", image=images, label=labels)
    data = convert(tmp_path / "a.npz", tmp_path / "d")
    assert (data.column("image") == images).all()
    assert (data[3]["image"] == images[3]).all()
    assert data[-1]["label"] == 4
    assert data.describe("image").channels == "last"
    np.savez(tmp_path / "b.npz", image=images, label=labels[:4])
    with pytest.raises(DataError, match="differ in rows"):
        convert(tmp_path / "b.npz", tmp_path / "e")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "o.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="never unpickled"):
        convert(tmp_path / "o.npy", tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_images_in_folders_get_labels_and_one_size(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name in ("cats/a.png", "cats/b.png", "dogs/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    data = convert(tmp_path / "in", tmp_path / "same")
    assert data.describe("image").shape == (8, 6, 3)
    assert data.column("label").tolist() == [0, 0, 1]
    assert data.describe("label").names == ("cats", "dogs")
    with image.open(tmp_path / "in/dogs/c.png") as stored:
        assert (data[2]["image"] == np.asarray(stored)).all()
    image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(tmp_path / "in/dogs/d.png")
    with pytest.raises(DataError, match="--size"):
        convert(tmp_path / "in", tmp_path / "differ")
    (tmp_path / "in/dogs/e.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"e\.png.*--skip-bad"):
        convert(tmp_path / "in", tmp_path / "bad", Choices(size=(4, 4)))
    notes: list[str] = []
    sized = convert(
        tmp_path / "in", tmp_path / "sized", Choices(size=(4, 4), channels="first", skip_bad=True), notes=notes
    )
    assert sized.column("image").shape == (4, 3, 4, 4)
    assert notes == ["left out e.png"]
    kept = convert(tmp_path / "in", tmp_path / "kept", Choices(encoded=True))
    assert kept.row("image", 4).tobytes() == b"nonsense"


def test_tables_keep_numbers_text_and_lists(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = arrow.table({
        "a": [1, 2, 3], "b": [0.5, None, 2.5], "text": ["eins", None, "drei äöü"], "ids": [[1, 2], [], [3]],
        "pair": arrow.array([[1.0, 2.0]] * 3, arrow.list_(arrow.float32(), 2)),
    })  # fmt: skip
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    data = convert(tmp_path / "t.parquet", tmp_path / "d")
    assert data.column("a").tolist() == [1, 2, 3]
    assert np.isnan(data.column("b")[1])
    assert data.schema.statistics["b"]["count"] == [2]
    assert [data[i]["text"] for i in range(3)] == ["eins", "", "drei äöü"]
    assert [data[i]["ids"].tolist() for i in range(3)] == [[1, 2], [], [3]]
    assert data.describe("pair").shape == (2,)
    with arrow.OSFile(str(tmp_path / "s.arrow"), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert convert(tmp_path / "s.arrow", tmp_path / "h").column("a").tolist() == [1, 2, 3]
    (tmp_path / "c.csv").write_text("x,y,name\n1,2.5,p\n3,4.5,q\n")
    stacked = convert(tmp_path / "c.csv", tmp_path / "e", Choices(stack="features", keep=("name",)))
    assert stacked.column("features").tolist() == [[1, 2.5], [3, 4.5]]
    (tmp_path / "n.csv").write_text("x\n1\n\n2\nthree\n")
    (tmp_path / "m.csv").write_text("x,y\n1,2\n,3\n")
    with pytest.raises(DataError, match=r"'x' has no value in row 1"):
        convert(tmp_path / "m.csv", tmp_path / "f")


def test_tokens_from_numbers_and_text(tmp_path: Path) -> None:
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "t.bin")
    assert (convert(tmp_path / "t.bin", tmp_path / "d").column("tokens") == np.arange(1000)).all()
    (tmp_path / "t.txt").write_text("abc")
    assert convert(tmp_path / "t.txt", tmp_path / "e").column("tokens").tolist() == [97, 98, 99]
    (tmp_path / "odd.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match="at byte 2"):
        convert(tmp_path / "odd.bin", tmp_path / "f")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def test_tar_files_become_samples(tmp_path: Path) -> None:
    array = io.BytesIO()
    np.save(array, np.arange(4, dtype=np.float32))
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as archive:
            for i in range(3):
                add(archive, f"x/{shard}{i}.cls", b"%d" % i)
                add(archive, f"x/{shard}{i}.txt", b"s" * i)
                add(archive, f"x/{shard}{i}.npy", array.getvalue())
    (tmp_path / "in").mkdir()
    for shard in range(2):
        (tmp_path / f"{shard}.tar").rename(tmp_path / "in" / f"{shard}.tar")
    data = convert(tmp_path / "in", tmp_path / "d")
    assert data.column("cls").tolist() == [0, 1, 2, 0, 1, 2]
    assert data[2]["txt"] == "ss"
    assert data.column("npy")[5].tolist() == [0, 1, 2, 3]
    whole = (tmp_path / "in/0.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 512 * 7 + 60])
    with pytest.raises(DataError, match=r"cut\.tar"):
        convert(tmp_path / "cut.tar", tmp_path / "e")


def damaged(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(1 << 19, dtype=np.float64))
    convert(tmp_path / "x.npy", tmp_path / "set", overwrite=True)
    return tmp_path / "set"


def test_damage_is_named_with_file_and_byte(tmp_path: Path) -> None:
    path = damaged(tmp_path) / "x.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"x\.bin at byte \d+: it is cut short") as caught:
        Dataset(path.parent)
    assert caught.value.offset == len(whole) - 100
    flipped = bytearray(whole)
    flipped[HEADER_BYTES + (2 << 20) + 17] ^= 4
    path.write_bytes(bytes(flipped))
    with pytest.raises(DataError, match="checksum") as caught:
        Dataset(path.parent).verify()
    assert caught.value.offset == HEADER_BYTES + (2 << 20)
    foreign = bytearray(whole)
    foreign[8:12] = foreign[8:12][::-1]
    path.write_bytes(bytes(foreign))
    with pytest.raises(DataError, match=r"byte 8: .*other byte order"):
        Dataset(path.parent)
    header = bytearray(whole)
    header[30] ^= 1
    path.write_bytes(bytes(header))
    with pytest.raises(DataError, match="header does not match"):
        Dataset(path.parent)
    path.write_bytes(whole)
    schema = json.loads((path.parent / "dataset.json").read_text())
    schema["rows"] += 1
    (path.parent / "dataset.json").write_text(json.dumps(schema))
    with pytest.raises(DataError, match="edited or damaged"):
        Dataset(path.parent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda content: content["columns"][0].update(dtype="i2"), "mixes files of two data sets"),
        (lambda content: content["columns"][0].update(shape=[10**12]), "mixes files of two data sets"),
        (lambda content: content.update(rows=-1), "its schema is wrong"),
        (lambda content: content["columns"][0].update(name="../x"), "no name of a column"),
        (lambda content: content["statistics"]["x"].update(mean=[0.0] * 7), "do not belong together"),
    ],
)
def test_a_wrong_schema_with_a_right_checksum_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    place = damaged(tmp_path) / "dataset.json"
    content = json.loads(place.read_text())
    del content["checksum"]
    change(content)
    checksum = f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"
    place.write_text(json.dumps({**content, "checksum": checksum}))
    with pytest.raises(DataError, match=said):
        Dataset(place.parent)


def test_files_of_two_data_sets_do_not_mix(tmp_path: Path) -> None:
    one = damaged(tmp_path)
    np.save(tmp_path / "x.npy", np.arange(1 << 18, dtype=np.float32))
    two = convert(tmp_path / "x.npy", tmp_path / "two").folder
    (one / "x.bin").write_bytes((two / "x.bin").read_bytes())
    with pytest.raises(DataError, match="two data sets"):
        Dataset(one)


KILLED = """
import sys, time
import memfit.data.dataset_writer as w
from memfit.data import convert
w.CHECKPOINT_BYTES = 1
import memfit.data.sources.arrays as a
a.BLOCK_BYTES = 1 << 16
def slow(text, done, total):
    print(done, flush=True)
    time.sleep(0.02)
convert(sys.argv[1], sys.argv[2], progress=slow)
"""


def test_a_killed_convert_leaves_nothing_visible_and_goes_on(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((40000, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", values)
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "x.npy"), str(tmp_path / "d")], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    for _ in range(5):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not (tmp_path / "d").exists()
    assert (tmp_path / ".d.part").is_dir()
    seen: list[int] = []
    data = convert(tmp_path / "x.npy", tmp_path / "d", progress=lambda text, done, total: seen.append(done or 0))
    assert (data.column("x") == values).all()
    data.verify()
    np.testing.assert_allclose(data.schema.statistics["x"]["mean"], values.astype(np.float64).mean(0), atol=1e-7)
    assert not (tmp_path / ".d.part").exists()
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["dataset.json", "x.bin", "x.sum"]


def test_a_changed_source_starts_anew(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros(10))
    (tmp_path / ".d.part").mkdir()
    (tmp_path / ".d.part" / "progress.json").write_text("{}")
    (tmp_path / ".d.part" / "x.bin").write_bytes(b"old")
    assert convert(tmp_path / "x.npy", tmp_path / "d").column("x").tolist() == [0] * 10


def test_two_converts_of_one_target_do_not_meet(tmp_path: Path) -> None:
    from memfit.data.dataset_writer import DatasetWriter
    from memfit.data.schema import Column

    first = DatasetWriter(tmp_path / "d", [Column("x", "f4")], {})
    with pytest.raises(OutputError, match="another process"):
        DatasetWriter(tmp_path / "d", [Column("x", "f4")], {})
    first.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    np.save(tmp_path / "x.npy", np.arange(1 << 19, dtype=np.float64))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
        with pytest.raises(OutputError, match="nothing is lost"):
            convert(tmp_path / "x.npy", tmp_path / "d")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not (tmp_path / "d").exists()
    assert len(convert(tmp_path / "x.npy", tmp_path / "d")) == 1 << 19


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["convert", "none.npy", "d"], "no such file"),
        (["convert", "empty.npy", "d"], "it is empty"),
        (["convert", "bad.npy", "d"], "no array of NumPy"),
        (["convert", "bad.npz", "d"], "no archive of NumPy"),
        (["convert", "bad.tar", "d"], "no whole tar file"),
        (["convert", "bad.odd", "d"], "its kind is not known"),
        (["convert", "good.npy", "there"], "it exists"),
        (["convert", "good.npy", "no/where"], "there is no folder"),
        (["convert", "good.npy", "d", "--size", "0x5"], "no size of images"),
        (["inspect", "none"], "no such folder"),
        (["inspect", "there"], "holds no dataset.json"),
        (["stats", "there"], "holds no dataset.json"),
    ],
)
def test_bad_input_is_one_message_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, arguments: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("good.npy", np.zeros(3))
    Path("empty.npy").touch()
    for end in ("npy", "npz", "tar", "odd"):
        Path(f"bad.{end}").write_bytes(b"nonsense" * 100)
    Path("there").mkdir()
    assert main(["data", *arguments]) == 2
    error = capfd.readouterr().err
    assert says in error
    assert "Traceback" not in error


def test_commands_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), dtype=np.uint8)
    np.savez("a.npz", image=images, x=np.linspace(0, 1, 30, dtype=np.float32))
    assert main(["data", "convert", "a.npz", "d", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"] == 30
    assert main(["data", "inspect", "d", "--verify", "--png", "s.png", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["verified_bytes"] == images.nbytes + 120
    assert Path("s.png").read_bytes().startswith(b"\x89PNG")
    assert main(["data", "stats", "d", "--exact", "--json"]) == 0
    columns = json.loads(capfd.readouterr().out)["columns"]
    np.testing.assert_allclose(columns["image"]["mean"], images.reshape(-1, 3).mean(0))
    assert columns["image"]["quantiles"]["0.5"] == np.median(images.reshape(-1, 3), axis=0).tolist()
    np.testing.assert_allclose(columns["x"]["quantiles"]["0.25"], [0.25], rtol=1e-6)
    for arguments in (["inspect", "d"], ["stats", "d"]):
        assert main(["data", *arguments]) == 0
        assert "image" in capfd.readouterr().out


@pytest.mark.parametrize(("line", "why"), [("1,2\n", "Expected 3 columns, got 2"), ("x,2,3\n", "invalid value 'x'")])
def test_a_bad_line_of_a_csv_file_is_named_with_its_row(tmp_path: Path, line: str, why: str) -> None:
    pytest.importorskip("pyarrow")
    many = 200_000  # the line lies beyond the first block, by which the types are chosen
    (tmp_path / "b.csv").write_text("a,b,c\n" + "1,2,3\n" * many + line + "4,5,6\n")
    with pytest.raises(DataError, match=rf"b\.csv.*row {many + 2} of the file.*{why}"):
        convert(tmp_path / "b.csv", tmp_path / "set")
    assert not (tmp_path / "set").exists()
