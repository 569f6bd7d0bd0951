"""Write the endings of all formats into the manifest: napari reads it without running Python.

Usage: python tools/write_endings.py [napari.yaml]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from napari_braintumor.engine.files.formats import FORMATS

WITHOUT_ENDING = ["DICOMDIR"]
"""Names of files that are read although they have no ending."""

MANIFEST = Path(__file__).parents[1] / "napari.yaml"
LINE = 100


def list_patterns() -> list[str]:
    """Return what the reader claims: all endings in lower and in upper case, and names without one."""
    endings = [suffix for each in FORMATS for suffix in each.suffixes]
    return [*(f"*{written}" for ending in endings for written in (ending, ending.upper())), *WITHOUT_ENDING]


def list_extensions() -> list[str]:
    """Return the endings that labels are written with."""
    return [suffix for each in FORMATS for suffix in each.written_suffixes]


def write_list(text: str, key: str, values: list[str]) -> str:
    """Replace a list in the manifest's text."""
    indent, lines = "\n        ", [""]
    for value in (f"'{value}'," for value in values):
        if len(lines[-1]) + len(value) > LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {value}".strip()
    changed, count = re.subn(rf"{key}: \[[^]]*\]", f"{key}: [{indent}{indent.join(lines)}\n      ]", text)
    if count != 1:
        raise SystemExit(f"The manifest has {count} lists of {key}. Expected one.")
    return changed


if __name__ == "__main__":
    path = Path(sys.argv[1]) if sys.argv[1:] else MANIFEST
    manifest = write_list(path.read_text(encoding="utf-8"), "filename_patterns", list_patterns())
    path.write_text(write_list(manifest, "filename_extensions", list_extensions()), encoding="utf-8")
