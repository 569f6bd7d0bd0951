from dataclasses import replace

import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseLeftOut
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training import prepared
from napari_braintumor.engine.training.prepared import STEP_Z, find_archived, read_archived, take_slices, write_archive
from napari_braintumor.engine.training.training_cases import TrainingData, load_data, load_training_case


@pytest.fixture(scope="module")
def cases(toy_plan, case_folder):
    return [load_training_case(case, toy_plan) for case in find_cases(case_folder)]


@pytest.fixture(scope="module")
def archive(toy_plan, cases, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "all.cases.zip"
    write_archive(path, toy_plan, cases)
    return path


def test_an_archive_gives_back_the_cases_it_was_made_of(toy_plan, cases, archive) -> None:
    found = find_archived(archive)
    assert [case.name for case in found] == [case.name for case in cases]
    for before, file in zip(cases, found, strict=True):
        after = read_archived(file, toy_plan)
        assert (after.name, after.patient, after.group) == (before.name, before.patient, before.group)
        for name in ("regions", "known", "slices", "counted"):
            assert np.array_equal(getattr(after, name), getattr(before, name))
        for name in ("box", "frame", "shape", "normalization"):
            assert getattr(after.prepared, name) == getattr(before.prepared, name)
        assert np.array_equal(after.prepared.foreground, before.prepared.foreground)
        moved = np.abs(after.prepared.data.astype(float) - before.prepared.data.astype(float))
        assert moved.max() <= STEP_Z / 2 + 0.003
        assert not after.prepared.data[:, ~after.prepared.foreground].any()


def test_missing_modalities_and_regions_stay_missing(toy_plan, cases, tmp_path) -> None:
    case = cases[0]
    present, known = np.array([True, False, False, True]), np.array([True, False, False])
    data = np.where(present[:, None, None, None], case.prepared.data, 0)
    case = replace(case, prepared=replace(case.prepared, present=present, data=data), known=known)
    write_archive(tmp_path / "a.cases.zip", toy_plan, [case])
    (file,) = find_archived(tmp_path / "a.cases.zip")
    assert [image.modality for image in file.images] == ["T1", "FLAIR"]
    after = read_archived(file, toy_plan)
    assert after.prepared.present.tolist() == present.tolist()
    assert after.known.tolist() == known.tolist()
    assert not after.prepared.data[~present].any()


def test_a_plan_learns_from_an_archive_as_from_the_scans(toy_plan, archive, tmp_path) -> None:
    *_, scans = load_data(toy_plan, tmp_path)
    *_, stored = load_data(toy_plan.model_copy(update={"cases": (archive,)}), tmp_path)
    assert isinstance(scans, TrainingData)
    assert isinstance(stored, TrainingData)
    # So a run that began with the one can go on with the other.
    assert stored.describe() == scans.describe()


def test_an_archive_is_read_by_its_own_steps(toy_plan, archive, monkeypatch) -> None:
    (file, *_), before = find_archived(archive), STEP_Z
    expected = read_archived(file, toy_plan).prepared.data
    monkeypatch.setattr(prepared, "STEP_Z", 2 * before)
    assert np.array_equal(read_archived(file, toy_plan).prepared.data, expected)


def test_every_second_slice_keeps_its_place_in_the_scan(cases) -> None:
    case = replace(cases[0], counted=np.array([0, 1, 4]))
    half = take_slices(case, 2)
    assert half.slices.tolist() == case.slices[::2].tolist()
    assert half.counted.tolist() == [0, 2]
    assert np.array_equal(half.regions, case.regions[:, ::2])
    assert half.prepared.data.shape[1] == len(half.slices) == len(half.prepared.foreground)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"modalities": ("FLAIR",)}, "modalities"),
        ({"regions": ("whole tumor",)}, "regions"),
        ({"spacing": (None, 3.0, 3.0)}, "spacing"),
    ],
)
def test_an_archive_for_another_plan_is_refused(toy_plan, archive, tmp_path, change, what) -> None:
    plan = toy_plan.model_copy(update={"cases": (archive,), **change})
    events = []
    with pytest.raises(DataError, match="None of the"):
        events.extend(load_data(plan, tmp_path))
    with pytest.raises(DataError, match=rf"was prepared for the {what} .*Prepare it anew"):
        read_archived(find_archived(archive)[0], plan)


def test_a_torn_archive_is_an_error_in_words(archive, tmp_path) -> None:
    torn = tmp_path / "torn.cases.zip"
    torn.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match="cannot be read as an archive of prepared cases"):
        find_archived(torn)
    with pytest.raises(DataError, match="cannot be read as an archive of prepared cases"):
        find_archived(tmp_path / "absent.cases.zip")


def test_a_damaged_case_of_an_archive_costs_itself_only(toy_plan, archive, tmp_path) -> None:
    raw = bytearray(archive.read_bytes())
    at = raw.index(b"case0.npz") + 400
    raw[at : at + 64] = bytes(64)
    damaged = tmp_path / "damaged.cases.zip"
    damaged.write_bytes(raw)
    events = list(load_data(toy_plan.model_copy(update={"cases": (damaged,)}), tmp_path))
    assert [event.case for event in events if isinstance(event, CaseLeftOut)] == ["case0"]
