"""What the README says can be typed, run and clicked as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from napari_braintumor.cli import app
from napari_braintumor.engine.files.sample import sample_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(
    r"(?:napari-braintumor|-m napari_braintumor) ([a-z].*)", "\n".join(re.findall(r"```\n(.*?)```", README, re.DOTALL))
)


def find_options(words: list[str]) -> set[str]:
    """Return the options of the command that words begin with; typer may bring a click of its own, so no types."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, f"There is no command '{word}' as in '{' '.join(words)}'."
        command = command.commands[word]
    return {option for each in command.params for option in each.opts}


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: "-".join(line.split()[:3]))
def test_every_command_of_the_readme_exists_with_its_options(line: str) -> None:
    for part in re.split(r";\s+(?=models )", line):
        assert set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", part)) <= find_options(part.split())


@pytest.mark.parametrize("target", sorted({*re.findall(r"^make ([a-z-]+)", README + CONTRIBUTING, re.MULTILINE)}))
def test_every_target_of_make_that_is_named_exists(target: str) -> None:
    assert re.search(rf"^{target}:.*##", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "docs/models.md", "benchmarks/results.md"]
)
def test_every_file_that_a_page_links_to_or_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = {link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link}
    named = set(re.findall(r"`((?:tools|docs|benchmarks|tests)/[\w./-]+)`", text))
    missing = [link for link in linked if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing + [name for name in named if not (ROOT / name).exists()] == []


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_case").symlink_to(sample_folder(), target_is_directory=True)
    (code,) = PYTHON
    exec(compile(code, "README.md", "exec"), {})
    assert "whole tumor" in capsys.readouterr().out


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 10
