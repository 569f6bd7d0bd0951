from __future__ import annotations

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from moved_heads import make_grid, make_move, scan_head
from napari_braintumor.cli import app
from napari_braintumor.engine.aligning.returning import move_labels
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.nifti import read_nifti
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.preparing import brain
from napari_braintumor.engine.settings import AlignConfig

run = CliRunner().invoke
GRIDS = {"t1": make_grid((4, 2, 2), tilt_deg=8), "flair": make_grid((6, 2, 2))}
HEADERS = ["--registration", "never"]


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "anna"
    folder.mkdir()
    for kind, grid in GRIDS.items():
        image = nib.Nifti1Image(grid.to_source(scan_head(kind, grid).data), grid.affine)
        nib.save(image, folder / f"{kind}.nii.gz")
    return folder


def shapes(folder):
    return {path.name: nib.load(path).shape for path in folder.glob("*.nii.gz")}


def test_prepare_writes_a_case_on_one_grid_that_is_found_and_read_again(case, tmp_path):
    result = run(app, ["prepare", str(case), "-o", str(tmp_path / "out"), *HEADERS])
    assert result.exit_code == 0, result.output
    assert "T1 was brought onto the grid of FLAIR by its scanner coordinates." in result.output
    home = tmp_path / "out" / "anna"
    assert shapes(home) == dict.fromkeys(("t1.nii.gz", "flair.nii.gz"), GRIDS["flair"].shape)
    (again,) = find_cases(home)
    first, second = read_case(*find_cases(case), AlignConfig(registration="never")), read_case(again)
    assert (second.name, second.modalities, second.alignment) == ("anna", first.modalities, None)
    np.testing.assert_array_equal(second.data, first.data)
    np.testing.assert_allclose(second.source.affine, first.source.affine, atol=1e-4)


def test_the_record_of_prepare_says_how_to_come_back(case, tmp_path):
    moved = make_move((6, -4, 8), (7, -5, 9))
    grid = GRIDS["t1"]
    nib.save(nib.Nifti1Image(grid.to_source(scan_head("t1", grid, moved).data), grid.affine), case / "t1.nii.gz")
    assert run(app, ["prepare", str(case), "-o", str(tmp_path / "out")]).exit_code == 0
    record = json.loads((tmp_path / "out" / "anna" / "alignment.json").read_text())
    assert (record["reference"], record["scans"]["FLAIR"]["how"]) == ("FLAIR", "same grid")
    t1 = record["scans"]["T1"]
    assert (t1["file"], t1["how"]) == ("t1.nii.gz", "registered")
    assert t1["mutual_information"]["after"] > t1["mutual_information"]["before"]
    np.testing.assert_allclose(t1["to_reference"], np.linalg.inv(moved), atol=1)
    assert t1["own_grid"]["shape"] == list(grid.shape)
    np.testing.assert_allclose(t1["own_grid"]["affine"], grid.affine, atol=1e-4)
    assert str(tmp_path) not in json.dumps(record)


def test_prepare_never_replaces_a_case(case, tmp_path):
    for _ in range(2):
        assert run(app, ["prepare", str(case), "-o", str(tmp_path / "out"), *HEADERS]).exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"anna", "anna_2"}


def test_prepare_brings_scans_onto_the_grid_that_was_asked_for(case, tmp_path):
    for onto, kind in (("t1w", "t1"), ("finest", "t1"), ("auto", "flair")):
        run(app, ["prepare", str(case), "-o", str(tmp_path / onto), "--reference", onto, *HEADERS])
        assert set(shapes(tmp_path / onto / "anna").values()) == {GRIDS[kind].shape}


def test_scans_on_one_grid_are_written_as_they_are(case, tmp_path):
    (case / "t1.nii.gz").unlink()
    result = run(app, ["prepare", str(case), "-o", str(tmp_path / "out")])
    assert "All scans share one grid" in result.output
    written = read_nifti(tmp_path / "out" / "anna" / "flair.nii.gz")[0]
    np.testing.assert_array_equal(written, read_nifti(case / "flair.nii.gz")[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reference", "PET"], "'PET' is not a known modality"),
        (["--registration", "maybe"], "registration = 'maybe'"),
        (["--interpolation", "best"], "interpolation = 'best'"),
    ],
)
def test_impossible_options_of_prepare_are_explained(case, options, message):
    result = run(app, ["prepare", str(case), *options])
    assert result.exit_code == 2
    assert message in result.output


def test_a_reference_that_the_case_does_not_have_fails_that_case(case, tmp_path):
    result = run(app, ["prepare", str(case), "-o", str(tmp_path / "out"), "--reference", "T2"])
    assert result.exit_code == 1
    assert "the case has T1, FLAIR" in result.output


def test_segment_writes_labels_on_the_grid_of_every_scan(case, toy_model, tmp_path):
    out = tmp_path / "out"
    result = run(app, ["segment", str(case), "-o", str(out), "-m", str(toy_model), "--on", "all", *HEADERS])
    assert result.exit_code == 0, result.output
    assert shapes(out) == {
        "anna_tumor.nii.gz": GRIDS["flair"].shape, "anna_on_T1_tumor.nii.gz": GRIDS["t1"].shape
    }  # fmt: skip
    own, grid = read_nifti(out / "anna_tumor.nii.gz")
    other, other_grid = read_nifti(out / "anna_on_T1_tumor.nii.gz")
    assert own.any()
    np.testing.assert_allclose(other_grid.affine, GRIDS["t1"].affine, atol=1e-4)
    np.testing.assert_array_equal(other, move_labels(own.astype(np.uint8), grid, other_grid, np.eye(4)))
    assert json.loads((out / "anna_on_T1_tumor.json").read_text())["on_the_grid_of"] == "T1"


def test_segment_writes_labels_on_the_grid_of_one_scan(case, toy_model, tmp_path):
    common = ["segment", str(case), "-m", str(toy_model), *HEADERS]
    assert run(app, [*common, "-o", str(tmp_path / "one"), "--on", "t1"]).exit_code == 0
    assert shapes(tmp_path / "one") == {"anna_tumor.nii.gz": GRIDS["t1"].shape}
    result = run(app, [*common, "-o", str(tmp_path / "none"), "--on", "T2"])
    assert result.exit_code == 1
    assert "There is no T2 in this case to write labels for. Expected one of T1, FLAIR." in result.output


def test_where_scans_share_a_grid_labels_are_written_once(case_folder, toy_model, tmp_path):
    run(app, ["segment", str(case_folder / "case7"), "-o", str(tmp_path), "-m", str(toy_model), "--on", "all"])
    assert [path.name for path in tmp_path.glob("*.nii.gz")] == ["case7_tumor.nii.gz"]


def test_brightness_is_corrected_on_request_and_the_record_says_so(case, tmp_path):
    (case / "t1.nii.gz").unlink()
    for name, options in (("plain", []), ("corrected", ["--n4"])):
        result = run(app, ["prepare", str(case), "-o", str(tmp_path / name), *options])
        assert result.exit_code == 0, result.output
    note = "Slow changes of brightness were corrected (N4) in FLAIR."
    assert note in result.output
    plain, corrected = (tmp_path / name / "anna" for name in ("plain", "corrected"))
    assert note in json.loads((corrected / "alignment.json").read_text())["notes"]
    assert note not in json.loads((plain / "alignment.json").read_text())["notes"]
    before, after = (read_nifti(home / "flair.nii.gz")[0] for home in (plain, corrected))
    assert (before != after).any()


def test_the_brain_of_stripped_scans_is_not_extracted_again(case, tmp_path):
    result = run(app, ["prepare", str(case), "-o", str(tmp_path / "out"), "--strip", *HEADERS])
    assert result.exit_code == 0, result.output
    assert "anna: the scans are skull-stripped already." in result.output


def test_the_brain_is_extracted_on_request_or_it_is_said_what_is_missing(case, tmp_path, monkeypatch):
    command = ["prepare", str(case), "-o", str(tmp_path / "out"), "--strip", *HEADERS]
    monkeypatch.setattr(sys.modules["napari_braintumor.cli.prepare"], "see_skull", lambda volume: volume.modalities)
    monkeypatch.setattr(brain, "find_spec", lambda name: None)
    result = run(app, command)
    assert result.exit_code == 1
    assert "needs the package deepbet" in result.output
    monkeypatch.setattr(brain, "find_spec", lambda name: object())
    monkeypatch.setattr(brain, "find_brain", lambda image: np.indices(image.shape)[2] < image.shape[2] // 2)
    result = run(app, command)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "anna" / "alignment.json").read_text())
    assert any(note.startswith("The brain was extracted") for note in record["notes"])
    data = read_nifti(tmp_path / "out" / "anna" / "flair.nii.gz")[0]
    assert not data[..., -data.shape[2] // 4 :].any()
