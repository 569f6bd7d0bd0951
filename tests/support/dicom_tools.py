"""Programs of others that check and read DICOM: dciodvfy (dicom3tools), and dcmqi's converters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def require_tool(name: str) -> str:
    """Return the path of a program, or skip the test."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=places)
    if found is None:
        pytest.skip(f"needs {name} (dciodvfy: Debian's dicom3tools; the others: pip install dcmqi)")
    return found


def errors_of(path: Path) -> set[str]:
    """Return what dciodvfy finds wrong with a DICOM file."""
    done = subprocess.run([require_tool("dciodvfy"), str(path)], capture_output=True, text=True, errors="replace")
    return {line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")}


def convert_segments(path: Path, folder: Path) -> list[Path]:
    """Convert a DICOM segmentation to an image for each segment with dcmqi, in the order of their numbers."""
    tool = require_tool("segimage2itkimage")
    folder.mkdir(exist_ok=True)
    command = [tool, "--inputDICOM", str(path), "--outputDirectory", str(folder), "-p", "s", "-t", "nrrd"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {int(file.stem.split("-")[1]): file for file in folder.glob("s-*.nrrd")}
    return [found[number] for number in sorted(found)]


def read_measurements(path: Path, folder: Path) -> list[dict[str, Any]]:
    """Read the groups of measurements of a DICOM report with dcmqi."""
    tool = require_tool("tid1500reader")
    out = folder / "measurements.json"
    done = subprocess.run([tool, "--inputDICOM", str(path), "--outputMetadata", str(out)], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    groups: list[dict[str, Any]] = json.loads(out.read_text())["Measurements"]
    return groups
