"""The documents tell the truth: what they name exists, and every option is described."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path

import click
import pytest

from memfit.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = (
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/commands.md",
    "docs/vocabulary.md",
)
FOLDERS = (
    "src native tests docs benchmarks examples api cli report ir machine analyses passes allocators frameworks observe"
)
TOP = f"(?:{'|'.join([*FOLDERS.split(), 'fitting', 'testing'])})"


def named_paths(text: str) -> set[str]:
    """Files and folders that a text names in code marks or links to."""
    marked = re.findall(rf"`({TOP}/[\w/.]*|\w+\.(?:py|toml|md))`", text)
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    return {name.rstrip("/") for name in marked + linked}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_a_document_names_exists(document: str) -> None:
    path = ROOT / document
    roots = (path.parent, ROOT, ROOT / "src/memfit")
    missing = [
        name
        for name in named_paths(path.read_text(encoding="utf-8"))
        if not any((root / name).exists() or (root / f"{name}.py").exists() for root in roots)
        and not any(
            (root / os.path.dirname(name) / f"{os.path.basename(name).partition('.')[0]}.py").exists() for root in roots
        )
    ]
    assert missing == []


def test_a_missing_file_would_be_noticed() -> None:
    assert named_paths("`report/nonsense.py`, [x](docs/none.md), `units.py`, `a/b.py`") == {
        "report/nonsense.py",
        "docs/none.md",
        "units.py",
    }


def test_the_map_names_every_folder_of_the_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in (ROOT / "src/memfit").glob("*/__init__.py")]
    assert len(folders) > 8
    assert [name for name in folders if f"`{name}/" not in text] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_described(name: str) -> None:
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    command: click.Command = importlib.import_module(f"memfit.cli.{name}").command
    options = [option for p in command.params if isinstance(p, click.Option) for option in p.opts]
    assert [option for option in options if f"`{option}" not in text] == []
    assert f"## `memfit {name}" in text


def test_the_readme_stays_short_and_names_its_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text.split("make test")[0]
    made = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"make ([a-z]+)", text)) <= set(made)


def test_continuous_integration_runs_the_tests_of_the_readme() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")
