"""`memfit run` from the command line: the answer, and bad input with one clear message and exit 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from memfit.cli.main import main

PROGRAM = """
import torch
from torch import nn

def net(width=64, layers=6):
    return nn.Sequential(*[nn.Linear(width, width) for _ in range(layers)]), torch.ones(2, width)

def callable_model():
    return (lambda x: x), torch.ones(2)
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, Path]:
    path = tmp_path / "program_to_run.py"
    path.write_text(PROGRAM)
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(6)])
    save_file(model.state_dict(), str(tmp_path / "w.safetensors"))
    return f"{path}:net", tmp_path / "w.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("llama")
    config = tf.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, vocab_size=300,
        max_position_embeddings=64,
    )  # fmt: skip
    tf.LlamaForCausalLM(config).eval().save_pretrained(path)
    return path


def test_a_target_runs(program: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    target, weights = program
    assert main(["run", target, "--weights", str(weights), "--budget", "96KiB", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["budget"] == 96 * 1024
    assert report["projected"]["peak"] <= report["budget"]
    assert len(report["pass_seconds"]) == 2
    assert {"peak", "private", "read", "hit_rate", "resident_weights"} <= set(report["measured"])
    large = ["run", target, "--weights", str(weights), "--budget", "1GiB", "--json"]
    assert main(large) == 0
    assert json.loads(capsys.readouterr().out)["output_sha256"] == report["output_sha256"]


def test_a_folder_generates(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(folder), "--budget", "700KiB", "--tokens", "8", "--new-tokens", "4", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["generated"]) == 4
    assert main(["run", str(folder), "--budget", "700KiB", "--tokens", "8"]) == 0
    out = capsys.readouterr().out
    assert "of weights ran within 700 KiB" in out
    assert "no schedule reaches more than" in " ".join(out.split())


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("memfit:")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    assert "bug of memfit" not in captured.err
    return lines[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def long_header(path: Path) -> None:
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])


def rewritten(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = load_file(str(path))
        change(state)
        save_file(state, str(path))

    return write


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "it was cut short or its header lies"),
        (long_header, "more than the format's limit"),
        (lambda p: p.unlink(), "No such file"),
        (lambda p: p.write_bytes(b""), "it has 0 bytes"),
        (rewritten(lambda s: s.pop("2.bias")), "are not in it: '2.bias'"),
        (rewritten(lambda s: s.update(other=torch.zeros(2))), "no place for 1 of its 13 tensors: 'other'"),
        (rewritten(lambda s: s.update({"2.bias": s["2.bias"].bfloat16()})), "is bfloat16, the model wants float32"),
    ],
)
def test_bad_files(
    damage: Callable[[Path], Any], words: str, program: tuple[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    target, weights = program
    damage(weights)
    message = refused(["run", target, "--weights", str(weights), "--budget", "1MiB"], capsys)
    assert words in message
    assert str(weights) in message


def test_the_smallest_budget_is_named_and_works(program: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    target, weights = program
    assert main(["run", target, "--weights", str(weights), "--budget", "5KiB", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["feasible"] is False
    assert answer["error"]["kind"] == "BudgetError"
    needed = str(answer["smallest_feasible"])
    assert main(["run", target, "--weights", str(weights), "--budget", needed]) == 0


def test_other_wrong_use(
    program: tuple[str, Path], folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, weights = program
    assert "give --weights FILE" in refused(["run", target, "--budget", "1MiB"], capsys)
    assert "it is no model" in refused(["run", str(tmp_path), "--budget", "1MiB"], capsys)
    assert "it is no model" in refused(["run", "nowhere", "--budget", "1MiB"], capsys)
    assert "not a size" in refused(["run", str(folder), "--budget", "much"], capsys)
    other = target.replace(":net", ":callable_model")
    assert "no torch.nn.Module" in refused(["run", other, "--weights", str(weights), "--budget", "1MiB"], capsys)
    generating = ["run", target, "--weights", str(weights), "--budget", "1MiB", "--new-tokens", "2"]
    assert "only a transformers folder" in refused(generating, capsys)
    assert "needs its tokenizer" in refused(["run", str(folder), "--budget", "1MiB", "--prompt", "hello"], capsys)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "config.json cannot be read"),
        ("{}", "config.json cannot be read"),
        ('{"model_type": "llama", "architectures": ["NoSuchModel"]}', "has no 'NoSuchModel'"),
    ],
)
def test_bad_configs(config: str, words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(config)
    assert words in refused(["run", str(tmp_path), "--budget", "1MiB"], capsys)
