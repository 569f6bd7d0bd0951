"""However the same patient is stored, the same tumor is found, or a refusal names the cause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from napari_braintumor.engine import segment
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import Noted
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.measuring.metrics import volume_dice
from napari_braintumor.engine.measuring.record import save_segmentation
from napari_braintumor.engine.settings import SegmentConfig
from ways_to_store import WAYS, Patient, Stored, Way

APART = 0.02
"""So much may whole-tumor Dice differ from that of the plain way."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Rows that are printed at the end, also where output is captured."""
    rows: list[str] = []
    yield rows
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n" + "\n".join(rows))


def read_patient(folder: Path, names: dict[str, str], seg: str) -> Patient:
    """Read a patient with axes (x, y, z) that grow to right, anterior, superior."""
    images = {m: nib.as_closest_canonical(nib.load(next(folder.glob(name)))) for m, name in names.items()}
    mask = nib.as_closest_canonical(nib.load(next(folder.glob(seg))))
    arrays = {m: np.asarray(image.dataobj, np.float32) for m, image in images.items()}
    return Patient(arrays, np.asarray(mask.dataobj) > 0, mask.affine)


@pytest.fixture(scope="module")
def sample() -> Patient:
    names = {"T1": "*_t1.nii.gz", "T1ce": "*_t1ce.nii.gz", "T2": "*_t2.nii.gz", "FLAIR": "*_flair.nii.gz"}
    return read_patient(sample_folder(), names, "*_seg.nii.gz")


@pytest.fixture
def real(real_data: Path) -> Patient:
    names = {"T1": "*_t1.nii*", "T1ce": "*_t1ce.nii*", "T2": "*_t2.nii*", "FLAIR": "*_flair.nii*"}
    return read_patient(real_data / "brats" / "BraTS2021_00000", names, "*_seg.nii*")


def find_tumor(stored: Stored, output: Path) -> tuple[NDArray[np.bool_], list[str]]:
    """Open what was stored as users do, segment it, and read the written labels without any of our own code."""
    (case,) = find_cases(stored.path, stored.modalities)
    notes: list[str] = []
    for event in segment(read_case(case), SegmentConfig(device="cpu")):
        if isinstance(event, Noted):
            notes.append(event.text)
    labels, _ = save_segmentation(event.segmentation, output)
    if labels.suffix in (".tif", ".tiff"):
        return tifffile.imread(labels) > 0, notes
    return np.asarray(nib.load(labels).dataobj) > 0, notes


def hold(way: Way, patient: Patient, plain: float, folder: Path, output: Path) -> str:
    """Hold a way against the plain one, and return its row of the table."""
    stored = way.store(patient, folder)
    if way.refusal is not None:
        with pytest.raises(DataError, match=way.refusal) as refused:
            find_tumor(stored, output)
        return f"{way.name:42} refused: {str(refused.value)[:90]}"
    found, notes = find_tumor(stored, output)
    assert found.shape == stored.tumor.shape
    dice = volume_dice(found, stored.tumor)
    if way.note is not None:
        assert any(re.search(way.note, note) for note in notes), notes
    assert abs(dice - plain) <= APART, f"{way.name}: {dice:.3f}, plain {plain:.3f}; {notes}"
    return f"{way.name:42} {dice:.3f}  {dice - plain:+.3f}  {'; '.join(notes)[:90]}"


_plain: dict[str, float] = {}


def hold_against_plain(kind: str, way: Way, patient: Patient, tmp_path: Path, table: list[str]) -> None:
    if kind not in _plain:
        (tmp_path / "plain").mkdir()
        stored = WAYS[0].store(patient, tmp_path / "plain")
        _plain[kind] = volume_dice(find_tumor(stored, tmp_path / "plain_out")[0], stored.tumor)
    (tmp_path / "scans").mkdir()
    try:
        row = hold(way, patient, _plain[kind], tmp_path / "scans", tmp_path / "out")
    except BaseException as error:
        table.append(f"{kind:7} {way.name:42} FAILED {type(error).__name__}: {str(error)[:150]}")
        raise
    table.append(f"{kind:7} {row}")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_sample_case_is_segmented_alike_however_it_is_stored(
    way: Way, sample: Patient, tmp_path: Path, table: list[str]
) -> None:
    hold_against_plain("sample", way, sample, tmp_path, table)


@pytest.mark.real_data
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_real_case_is_segmented_alike_however_it_is_stored(
    way: Way, real: Patient, tmp_path: Path, table: list[str]
) -> None:
    hold_against_plain("real", way, real, tmp_path, table)
