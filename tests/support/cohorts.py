"""Cohorts on disk: one made-up case moved and mirrored, and ways to break some of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from napari_braintumor.engine.volumes import Volume
from toy_cases import make_case, write_case


def _write_words(path: Path) -> None:
    path.write_bytes(b"not a scan")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _fill_with_nan(path: Path) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, np.nan, np.float32), image.affine), path)


BROKEN: tuple[Callable[[Path], None], ...] = (_write_words, _cut_short, _empty, _fill_with_nan)
"""What is done to the T1 of a case."""


def move(volume: Volume, number: int) -> Volume:
    """Return a case moved by some voxels, and every second one mirrored; no two numbers up to 60 give the same."""
    data = volume.data[..., ::-1] if number % 2 else volume.data
    shift = (0, number % 5 - 2, number % 6 - 3)
    return replace(volume, data=np.ascontiguousarray(np.roll(data, shift, (1, 2, 3))), name=f"p{number:02d}")


def write_cohort(folder: Path, count: int, broken: int = 0) -> tuple[list[str], list[str]]:
    """Write so many cases, of which the last ones are broken, each in another way.

    Returns the names of the good and of the broken ones.
    """
    volume, _ = make_case(7)
    names = []
    for number in range(count):
        write_case(folder, move(volume, number))
        names.append(f"p{number:02d}")
    good, bad = names[: count - broken], names[count - broken :]
    for name, harm in zip(bad, BROKEN, strict=False):
        harm(folder / name / f"{name}_t1.nii.gz")
    return good, bad


def read_outputs(folder: Path) -> dict[str, bytes]:
    """Return what every file of a folder holds, but for times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".json" and b'"seconds"' in content:
            content = json.dumps({**json.loads(content), "seconds": 0}).encode()
        found[path.relative_to(folder).as_posix()] = content
    return found
