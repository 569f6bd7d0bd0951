import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.written import SIDECAR, corrected_folder, write_case
from napari_braintumor.engine.types import MODALITIES, Volume


@pytest.fixture
def case(make_volume) -> tuple[Volume, np.ndarray]:
    volume, reference = make_volume(1)
    return volume, reference.labels


def test_a_written_case_comes_back_as_it_was(case, tmp_path: Path) -> None:
    volume, labels = case
    folder = write_case(tmp_path, volume, labels, "brats2023", patient="anna", reviewed=[6, 4, 6])
    (found,) = find_cases(tmp_path)
    assert folder == tmp_path / "case1"
    assert (found.name, found.patient, found.group) == ("case1", "anna", "corrected")
    assert found.reviewed == (4, 6)
    back, reference = read_case(found), read_reference(found)
    assert back.modalities == MODALITIES
    assert np.allclose(back.data, volume.data)
    assert np.allclose(back.source.affine, volume.source.affine)
    assert np.array_equal(reference.labels, labels)


def test_an_oblique_grid_with_swapped_axes_comes_back(oblique_grid, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = random.normal(size=(1, 6, 20, 16)).astype(np.float32)
    labels = (random.random((6, 20, 16)) > 0.8).astype(np.uint8)
    write_case(tmp_path, Volume(data, ("FLAIR",), oblique_grid, "tilted"), labels, "whole")
    (found,) = find_cases(tmp_path)
    assert np.allclose(read_case(found).data, data)
    assert np.array_equal(read_reference(found).regions["whole tumor"], labels > 0)


def test_whole_numbers_are_stored_as_such_and_an_unknown_voxel_size_stays_unknown(case, tmp_path: Path) -> None:
    import nibabel as nib

    volume, labels = case
    guessed = replace(volume, data=np.rint(volume.data), source=replace(volume.source, spacing_known=False))
    folder = write_case(tmp_path, guessed, labels, "brats2023")
    assert nib.load(folder / "flair.nii.gz").get_data_dtype() == np.int16
    assert not read_case(find_cases(tmp_path)[0]).source.spacing_known


def test_other_modalities_than_the_four_known_ones_are_kept(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, replace(volume, modalities=("T1", "DWI", "T2", "FLAIR")), labels, "brats2023")
    assert [image.modality for image in find_cases(tmp_path)[0].images] == ["T1", "DWI", "T2", "FLAIR"]


def test_a_case_of_that_name_is_replaced(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, volume, labels, "brats2023", reviewed=[4])
    write_case(tmp_path, volume, labels, "brats2023", reviewed=[5])
    assert [found.reviewed for found in find_cases(tmp_path)] == [(5,)]
    assert [path.name for path in tmp_path.iterdir()] == ["case1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda labels: (labels[:5], "brats2023", None), r"The labels \(5, 72, 64\) and the scan .* differ in shape"),
        (lambda labels: (labels + 6, "brats2023", None), "holds the values 6, 7, 8, 9"),
        (lambda labels: (labels * 0, "brats2023", None), "The labels of 'case1' are empty"),
        (lambda labels: (labels, "brats2023", [40]), "Slice 40 was marked as reviewed, but the scan has 12 slices"),
        (lambda labels: (labels, "klingon", None), "no label convention 'klingon'"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused_and_nothing_is_left(case, tmp_path: Path, change, message: str) -> None:
    volume, labels = case
    labels, convention, reviewed = change(labels)
    with pytest.raises(DataError, match=message):
        write_case(tmp_path / "new", volume, labels, convention, reviewed=reviewed)
    assert not (tmp_path / "new").exists()


def test_an_empty_slice_that_was_reviewed_teaches_that_there_is_no_tumor(case, tmp_path: Path) -> None:
    volume, labels = case
    write_case(tmp_path, volume, labels * 0, "brats2023", reviewed=[3])
    assert find_cases(tmp_path)[0].reviewed == (3,)


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(case, tmp_path: Path) -> None:
    volume, labels = case
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="The case cannot be written to"):
        write_case(tmp_path / "taken", volume, labels, "brats2023")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {"T1": "../secret.nii.gz"}}, "does not describe a case: images.T1: String should match"),
        ({"convention": "klingon"}, "names the convention 'klingon'"),
        ({"labels": "gone.nii.gz"}, "'gone.nii.gz' is missing beside"),
        ({"colour": "red"}, "does not describe a case: colour: Extra inputs"),
        ({"images": {}}, "does not describe a case: images"),
    ],
)
def test_a_damaged_sidecar_is_refused(case, tmp_path: Path, change: dict, message: str) -> None:
    path = write_case(tmp_path, *case, "brats2023") / SIDECAR
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=message):
        find_cases(tmp_path)


def test_another_program_s_case_json_is_left_alone(case_folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(case_folder / "case0", tmp_path / "case0")
    for text in ('{"id": 7}', "not json"):
        (tmp_path / "case0" / SIDECAR).write_text(text)
        assert find_cases(tmp_path)[0].group == "other"


def test_the_user_s_folder_can_be_moved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BRAINTUMOR_CASES", str(tmp_path / "mine"))
    assert corrected_folder() == tmp_path / "mine"
    monkeypatch.delenv("BRAINTUMOR_CASES")
    assert corrected_folder().name == "corrected"
