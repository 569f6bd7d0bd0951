"""What images show is a reason in the table of series, where headers and names leave a doubt, and nothing more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from dicom import Acquisition, affine_of, write_series
from fluid_heads import brain
from napari_braintumor.cli import app
from napari_braintumor.engine.events import PhaseReached
from napari_braintumor.engine.files.case_files import CaseFiles
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.looking import look_at_unsure

BRIGHT, DARK = "fluid is bright in its image, as in T2", "fluid is dark in its image, as in T1, T1ce and FLAIR"

UNSURE = {
    "T2": Acquisition("kopf b", 2, echo_time=100.0, repetition_time=5000.0, volumetric=False),
    "T1": Acquisition("kopf c", 2, echo_time=9.0, repetition_time=500.0, volumetric=False),
    "nothing": Acquisition("kopf d", 2, echo_time=None, repetition_time=None),
}
"""By their times unsure T2 and T1, and one of which nothing is known."""


def write(folder: Path, shown: str, acquisition: Acquisition, shape: tuple[int, int, int] = (30, 96, 96)) -> None:
    spacing = tuple(120 / shape[0] if axis == 0 else 154 / side for axis, side in enumerate(shape))
    values = (brain(shown, shape) * 3).clip(0)
    write_series(folder / str(acquisition.number), values, affine_of(spacing=spacing, shape=shape), acquisition)


def look(folder: Path) -> tuple[CaseFiles, CaseFiles]:
    (before,) = find_cases(folder, offer=True)
    *phases, after = look_at_unsure(before)
    assert all(isinstance(phase, PhaseReached) for phase in phases)
    assert isinstance(after, CaseFiles)
    return before, after


def reasons(case: CaseFiles) -> Mapping[int | None, str]:
    return {row.series.number: row.reason for row in case.rows}


@pytest.mark.parametrize("known", ["FLAIR", "T2"])
@pytest.mark.parametrize("unsure", UNSURE)
@pytest.mark.parametrize("shown", ["T2", "T1"])
def test_an_unsure_series_is_compared_with_a_sure_one_on_another_grid(tmp_path, known, unsure, shown):
    write(tmp_path, known, Acquisition(f"ax {known}", 1, echo_time=None, repetition_time=None))
    write(tmp_path, shown, UNSURE[unsure], (24, 80, 110))
    before, after = look(tmp_path)
    seen = BRIGHT if shown == "T2" else DARK
    fits = unsure in ("nothing", shown)
    assert reasons(after)[2] == f"{reasons(before)[2]}; {'' if fits else 'but '}{seen}"
    assert [(row.modality, row.sure, row.used) for row in after.rows] == [
        (row.modality, row.sure, row.used) for row in before.rows
    ]
    assert after.images == before.images
    if any(row.used and not row.sure for row in after.rows):
        assert any(seen in note for note in after.notes)


def test_a_header_that_is_clear_is_not_looked_behind(tmp_path):
    write(tmp_path, "T1", Acquisition("ax t1", 1, echo_time=9.0, repetition_time=500.0))
    write(tmp_path, "FLAIR", Acquisition("ax t2", 2, echo_time=100.0, repetition_time=5000.0))
    before, after = look(tmp_path)
    assert after is before


def test_nothing_is_said_without_a_series_to_compare_with_or_in_other_coordinates(tmp_path):
    write(tmp_path / "alone", "T2", UNSURE["T2"])
    write(tmp_path / "apart", "T1", Acquisition("ax t1", 1, echo_time=9.0, repetition_time=500.0))
    write(tmp_path / "apart", "T2", replace(UNSURE["T2"], frame_of_reference="another"))
    for folder in ("alone", "apart"):
        before, after = look(tmp_path / folder)
        assert reasons(after) == reasons(before)


def test_a_series_that_cannot_be_read_is_passed_over(tmp_path):
    write(tmp_path, "T1", Acquisition("ax t1", 1, echo_time=9.0, repetition_time=500.0))
    write(tmp_path, "T2", UNSURE["T2"])
    path = min((tmp_path / "2").iterdir())
    path.write_bytes(path.read_bytes()[:-400])
    before, after = look(tmp_path)
    assert reasons(after) == reasons(before)


def test_the_command_line_says_what_the_images_show(tmp_path):
    write(tmp_path, "T1", Acquisition("ax t1", 1, echo_time=9.0, repetition_time=500.0))
    write(tmp_path, "T2", UNSURE["T2"])
    result = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    (case,) = json.loads(result.stdout)
    assert [BRIGHT in row["reason"] for row in case["series"]] == [False, True]
    assert np.isclose(case["series"][0]["spacing_zyx_mm"][0], 4)
