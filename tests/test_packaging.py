from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import napari_braintumor

PACKAGE = Path(napari_braintumor.__file__).parent
ROOT = Path(__file__).parents[1]
LOWEST = ROOT / "constraints-lowest.txt"


@pytest.mark.skipif(not LOWEST.exists(), reason="not in a source tree")
def test_what_the_lowest_versions_are_tested_with_is_what_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    del extras["all"]  # napari's own choice of a Qt
    declared = [*project["dependencies"], *(each for extra in extras.values() for each in extra)]
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", LOWEST.read_text(encoding="utf-8"), re.MULTILINE))
    tested = {_plain(name): version for name, version in tested.items()}
    bounds = {_plain(name): low for name, low in re.findall(r"^([\w.-]+)[^>]*>=([\d.]+)", "\n".join(declared), re.M)}
    assert len(bounds) == len({_plain(re.split(r"[\[>]", each)[0]) for each in declared})
    del bounds["torch"]  # see the first lines of the file
    assert {name: low for name, low in bounds.items() if not f"{tested[name]}.".startswith(f"{low}.")} == {}


def test_no_module_is_longer_than_400_lines() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
