"""Walk through folders: every folder once, even where links lead in circles, and nothing that is hidden."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from napari_braintumor.engine.files.calling import natural_sort_key


def walk_folders(top: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk through a folder and those below it, in natural order, following links.

    Yields
    ------
    tuple
        A folder, the names of its folders, and those of its files. Whoever clears the former stays out of them.
    """
    seen: set[str] = set()
    for below, subfolders, names in os.walk(top, followlinks=True):
        if (real := os.path.realpath(below)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = _visible(subfolders)
        yield Path(below), subfolders, _visible(names)


def _visible(names: list[str]) -> list[str]:
    return sorted((name for name in names if not name.startswith(".")), key=natural_sort_key)
