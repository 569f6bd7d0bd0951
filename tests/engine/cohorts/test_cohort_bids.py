"""BIDS: a dataset as public ones are laid out is understood, and derivatives are written as the specification says."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from cohorts import move
from napari_braintumor.engine import segment_cohort
from napari_braintumor.engine.cohorts.bids import (
    BidsName,
    is_bids_dataset,
    name_labels,
    read_bids_name,
    read_entities,
)
from napari_braintumor.engine.cohorts.cohort_events import CaseDone, CaseFailed
from napari_braintumor.engine.cohorts.marks import find_corrected_cases, mark_case, name_correction
from napari_braintumor.engine.cohorts.plan import CohortConfig, CohortPlan
from napari_braintumor.engine.cohorts.results import read_result
from napari_braintumor.engine.files.case_files import CaseFiles, ImageFile
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.written import write_case as write_corrected
from napari_braintumor.engine.settings import SegmentConfig
from toy_cases import make_case

WORDS = {"T1": "T1w", "T1ce": "ce-gadolinium_T1w", "T2": "T2w", "FLAIR": "FLAIR"}


@pytest.mark.parametrize(
    ("name", "entities", "suffix"),
    [
        ("sub-01_T1w.nii.gz", {"sub": "01"}, "T1w"),
        (
            "sub-01_ses-pre_acq-mprage_ce-gd_run-2_T1w.nii",
            {"sub": "01", "ses": "pre", "acq": "mprage", "ce": "gd", "run": "2"},
            "T1w",
        ),
        ("sub-A1_space-MNI152_desc-preproc_FLAIR.nii.gz", {"sub": "A1", "space": "MNI152", "desc": "preproc"}, "FLAIR"),
    ],
)  # fmt: skip
def test_entities_are_read_from_a_name(name, entities, suffix) -> None:
    assert read_bids_name(Path(name)) == BidsName(entities, suffix)


@pytest.mark.parametrize(
    "name",
    ["T1w.nii.gz", "ses-1_sub-1_T1w.nii", "sub-01.nii", "sub-1_flair_T1w.nii", "sub-1_run-1_run-2_T1w.nii", "a.nii"],
)
def test_other_names_are_not_bids(name) -> None:
    assert read_bids_name(Path(name)) is None


def case_of(*names: str) -> CaseFiles:
    return CaseFiles("c", "c", "bids", tuple(ImageFile((Path(name),), "T1") for name in names))


@pytest.mark.parametrize(
    ("names", "entities"),
    [
        (["sub-1_ses-2_run-1_T1w.nii", "sub-1_ses-2_run-1_FLAIR.nii"], {"sub": "1", "ses": "2", "run": "1"}),
        (["sub-1_run-1_T1w.nii", "sub-1_run-2_FLAIR.nii"], {"sub": "1"}),
        (["sub-1_T1w.nii", "sub-1_ce-gd_T1w.nii"], {"sub": "1"}),
        (["sub-1_space-T1w_desc-brain_T1w.nii", "sub-1_space-T1w_desc-brain_T2w.nii"], {"sub": "1"}),
        (["sub-1_T1w.nii", "flair.nii"], None),
        (["sub-1_T1w.nii", "sub-2_T1w.nii"], None),
        ([], None),
    ],
)
def test_a_result_is_named_by_what_its_scans_share(names, entities) -> None:
    assert read_entities(case_of(*names)) == entities


def test_a_second_result_has_a_number_and_one_on_another_grid_a_space() -> None:
    assert name_labels({"sub": "1", "run": "2"}, 1) == "sub-1_run-2_desc-tumor_dseg"
    assert name_labels({"sub": "1"}, 3, "T2") == "sub-1_space-T2_desc-tumor3_dseg"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"Name": "x"}'])
def test_a_folder_without_a_description_is_no_dataset(tmp_path, content) -> None:
    assert not is_bids_dataset(tmp_path)
    (tmp_path / "dataset_description.json").write_text(content)
    assert not is_bids_dataset(tmp_path)


def write_scans(folder: Path, stem: str, number: int, words: dict[str, str] = WORDS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    volume = move(make_case(7)[0], number)
    for modality, array in zip(volume.modalities, volume.data, strict=True):
        if modality in words:
            image = nib.Nifti1Image(volume.source.to_source(array), volume.source.affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, folder / f"{stem}_{words[modality]}.nii.gz")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Two sessions of one subject, two runs of another, acquisitions, and files that are none of ours."""
    root = tmp_path_factory.mktemp("bids") / "raw"
    write_scans(root / "sub-01" / "ses-pre" / "anat", "sub-01_ses-pre", 0)
    write_scans(root / "sub-01" / "ses-post" / "anat", "sub-01_ses-post", 1)
    write_scans(root / "sub-02" / "anat", "sub-02_run-1", 2)
    write_scans(root / "sub-02" / "anat", "sub-02_run-2", 3)
    acquired = {"T1": "acq-mprage_T1w", "T1ce": "acq-mprage_ce-gd_T1w", "FLAIR": "acq-space_FLAIR"}
    write_scans(root / "sub-03" / "anat", "sub-03", 4, acquired)
    write_scans(root / "sub-03" / "anat", "sub-03_acq-tse", 4, {"T2": "T2w"})
    (root / "sub-04" / "anat").mkdir(parents=True)
    (root / "sub-04" / "anat" / "sub-04_T1w.nii.gz").write_bytes(b"not a scan")
    (root / "sub-03" / "func").mkdir()
    shutil.copy(root / "sub-03/anat/sub-03_acq-tse_T2w.nii.gz", root / "sub-03/func/sub-03_task-rest_bold.nii.gz")
    for path in root.rglob("*.nii.gz"):
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"MagneticFieldStrength": 3}')
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t50\nsub-02\t60\nsub-03\t70\nsub-04\t80\n")
    (root / "dataset_description.json").write_text('{"Name": "Gliomas", "BIDSVersion": "1.8.0"}')
    return root


@pytest.fixture(scope="module")
def derived(dataset, toy_model) -> tuple[CohortPlan, list]:
    """Its derivatives, where the specification puts them."""
    config = CohortConfig(segmentation=SegmentConfig(model=str(toy_model), device="cpu"))
    output = dataset / "derivatives" / "napari-braintumor"
    plan = CohortPlan(find_cases(dataset), output, config, dataset)
    return plan, [*segment_cohort(plan)]


def test_a_session_is_a_case_with_all_its_scans(dataset) -> None:
    found = {case.name: {i.modality: i.paths[0].name for i in case.images} for case in find_cases(dataset)}
    assert set(found) == {"sub-01_ses-pre", "sub-01_ses-post", "sub-02", "sub-03", "sub-04"}
    assert found["sub-01_ses-pre"]["T1ce"] == "sub-01_ses-pre_ce-gadolinium_T1w.nii.gz"
    assert set(found["sub-02"].values()) == {f"sub-02_run-1_{word}.nii.gz" for word in WORDS.values()}
    assert found["sub-03"] == {
        "T1": "sub-03_acq-mprage_T1w.nii.gz",
        "T1ce": "sub-03_acq-mprage_ce-gd_T1w.nii.gz",
        "T2": "sub-03_acq-tse_T2w.nii.gz",
        "FLAIR": "sub-03_acq-space_FLAIR.nii.gz",
    }


def test_the_runs_that_are_left_out_are_named(dataset) -> None:
    (case,) = (case for case in find_cases(dataset) if case.name == "sub-02")
    assert "sub-02_run-2_FLAIR.nii.gz" in " ".join(case.notes)


def test_derivatives_are_named_as_the_specification_says(derived) -> None:
    plan, events = derived
    assert [event.case for event in events if isinstance(event, CaseFailed)] == ["sub-04"]
    results = {event.record.relative_to(plan.output).as_posix() for event in events if isinstance(event, CaseDone)}
    assert results == {
        "sub-01/ses-pre/anat/sub-01_ses-pre_desc-tumor_dseg.json",
        "sub-01/ses-post/anat/sub-01_ses-post_desc-tumor_dseg.json",
        "sub-02/anat/sub-02_run-1_desc-tumor_dseg.json",
        "sub-03/anat/sub-03_desc-tumor_dseg.json",
    }
    assert (plan.output / "sub-03/anat/sub-03_desc-tumor_dseg.nii.gz").is_file()
    about = json.loads((plan.output / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["Name"] == "Brain tumors in Gliomas"
    assert about["GeneratedBy"][0]["Name"] == "napari-braintumor"
    assert (plan.output / about["DatasetLinks"]["raw"]).resolve() == plan.bids.resolve()
    sidecar = json.loads((plan.output / "sub-02/anat/sub-02_run-1_desc-tumor_dseg.json").read_text())
    assert "bids:raw:sub-02/anat/sub-02_run-1_FLAIR.nii.gz" in sidecar["Sources"]
    assert sidecar["SpatialReference"] in sidecar["Sources"]
    legend = (plan.output / "desc-tumor_dseg.tsv").read_text().splitlines()
    assert legend[0] == "index\tname"
    assert legend[1] == "0\tbackground"
    assert len(legend) == 5


def test_participants_and_sessions_have_their_measurements(derived) -> None:
    plan, _ = derived

    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((plan.output / name).read_text().splitlines(), delimiter="\t"))

    people = {row["participant_id"]: row for row in rows("participants.tsv")}
    assert list(people) == ["sub-01", "sub-02", "sub-03"]
    assert people["sub-01"]["results"] == "2"
    assert people["sub-01"]["whole_tumor_volume_ml"] == "n/a"
    labels = np.asarray(nib.load(plan.output / "sub-03/anat/sub-03_desc-tumor_dseg.nii.gz").dataobj)
    assert float(people["sub-03"]["whole_tumor_volume_ml"]) == pytest.approx(np.count_nonzero(labels) * 0.003, abs=1e-3)
    assert set(json.loads((plan.output / "sessions.json").read_text())) == {*people["sub-03"]} - {
        "participant_id",
        "results",
    }
    sessions = rows("sub-01/sub-01_sessions.tsv")
    assert {row["session_id"] for row in sessions} == {"ses-pre", "ses-post"}
    assert all(float(row["whole_tumor_volume_ml"]) > 0 for row in sessions)


def save_correction(output: Path) -> None:
    """Leave in the derivatives what a window leaves there when a case is corrected and marked."""
    labels = next(output.rglob("*desc-tumor_dseg.nii.gz"))
    result = read_result(labels.with_name(labels.name.replace(".nii.gz", ".json")))
    corrected = name_correction(result)
    shutil.copy(labels, corrected)
    shutil.copy(result.record, corrected.with_name(corrected.name.replace(".nii.gz", ".json")))
    mark_case(output, "p1", "accepted")
    volume, reference = make_case(3)
    write_corrected(find_corrected_cases(output), volume, reference.labels, "brats2023")


def test_derivatives_inside_the_dataset_are_not_taken_for_masks_or_scans(derived) -> None:
    plan, _ = derived
    save_correction(plan.output)
    again = find_cases(plan.bids)
    assert [case.name for case in again] == [case.name for case in plan.cases]
    assert all(not case.reference for case in again)
    events = [*segment_cohort(replace(plan, cases=again))]
    assert all(event.reused for event in events if isinstance(event, CaseDone))


def test_the_validator_of_bids_finds_no_error(derived) -> None:
    validator = os.environ.get("BIDS_VALIDATOR") or shutil.which("bids-validator-deno")
    if not validator:
        pytest.skip("No bids-validator-deno; install it, or set BIDS_VALIDATOR to its path.")
    plan, _ = derived
    save_correction(plan.output)
    command = [validator, str(plan.output), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
