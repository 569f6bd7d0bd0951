import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import CaseLeftOut, Noted, PhaseReached
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training import training_cases
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.engine.training.training_cases import TrainingData, load_data, load_training_case
from toy_cases import add_skull, make_case, write_case


def load(plan, folder) -> tuple[TrainingData, list[str]]:
    events = list(load_data(plan, folder))
    assert isinstance(events[-1], TrainingData)
    return events[-1], [event.text for event in events if isinstance(event, Noted)]


def left_out(plan, folder) -> list[CaseLeftOut]:
    return [event for event in load_data(plan, folder) if isinstance(event, CaseLeftOut)]


@pytest.fixture(scope="module")
def data(toy_plan, tmp_path_factory) -> TrainingData:
    return load(toy_plan, tmp_path_factory.mktemp("cache"))[0]


def test_a_held_out_patient_is_not_even_read(data) -> None:
    names = {part.case.name for part in (*data.training, *data.validation)}
    assert names == {f"case{n}" for n in range(7)}
    assert [part.case.name for part in data.validation] == ["case6"]


def test_reviewed_slices_outside_the_head_are_reported(toy_plan, case_folder) -> None:
    case = replace(find_cases(case_folder)[0], reviewed=(0,))
    with pytest.raises(DataError, match="marked as reviewed shows the head"):
        load_training_case(case, toy_plan)


def test_a_case_without_a_mask_cannot_be_trained_on(toy_plan, case_folder) -> None:
    with pytest.raises(DataError, match="has no reference mask"):
        load_training_case(replace(find_cases(case_folder)[0], reference=()), toy_plan)


def test_modalities_that_show_the_skull_are_noted(toy_plan, tmp_path) -> None:
    volume, reference = make_case(0, spacing=(10, 3, 3))
    t2 = volume.modalities.index("T2")
    volume.data[t2] = add_skull(volume.data[t2], noise=15)
    (case,) = find_cases(write_case(tmp_path, volume, reference))
    assert load_training_case(case, toy_plan).with_skull == ("T2",)


def test_a_case_with_none_of_the_modalities_or_regions_is_reported(toy_plan, case_folder) -> None:
    case = find_cases(case_folder)[0]
    with pytest.raises(DataError, match="has T1, T1ce, T2, FLAIR, but the plan wants DWI"):
        load_training_case(case, toy_plan.model_copy(update={"modalities": ("DWI",)}))
    with pytest.raises(DataError, match="defines enhancing tumor, but the plan wants whole tumor"):
        load_training_case(
            replace(case, convention="enhancing"), toy_plan.model_copy(update={"regions": ("whole tumor",)})
        )


def test_cases_that_cannot_be_used_are_left_out_with_a_reason(toy_plan, case_folder, tmp_path) -> None:
    folder = tmp_path / "cases"
    shutil.copytree(case_folder, folder)
    for mask in folder.glob("case2/*seg*"):
        mask.unlink()
    plan = toy_plan.model_copy(update={"cases": (folder,)})
    data, _ = load(plan, tmp_path)
    assert len(data.training) == 5
    (reported,) = left_out(plan, tmp_path)
    assert reported.case == "case2"
    assert reported.text.startswith("case2 is left out: 'case2' has no reference mask")
    assert not reported.damaged


@pytest.mark.parametrize("spoiled", ["mask", "image", "grid", "problem"])
def test_a_damaged_case_costs_itself_and_is_named_and_the_others_are_trained_on(
    toy_plan, case_folder, tmp_path, monkeypatch, spoiled: str
) -> None:
    folder = tmp_path / "cases"
    shutil.copytree(case_folder, folder)
    if spoiled == "problem":
        found = find_cases(folder)
        found[2] = replace(found[2], images=(), problem="Case 'case2' has two masks.")
        monkeypatch.setattr(training_cases, "find_cases", lambda _: found)
    else:
        file = next((folder / "case2").glob("*seg*" if spoiled != "image" else "*t2*"))
        raw = file.read_bytes()
        file.write_bytes(raw[:200] if spoiled != "grid" else next((folder / "case2").glob("*t1ce*")).read_bytes())
    if spoiled == "grid":
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), file)
    plan = toy_plan.model_copy(update={"cases": (folder,)})
    data, _ = load(plan, tmp_path)
    assert {part.case.name for part in (*data.training, *data.validation)} == {f"case{n}" for n in (0, 1, 3, 4, 5, 6)}
    (reported,) = left_out(plan, tmp_path)
    assert reported.case == "case2"
    assert reported.damaged
    assert reported.text.startswith("case2 is left out: ")


def test_a_validation_case_that_is_damaged_leaves_the_others_to_validate_on(toy_plan, case_folder, tmp_path) -> None:
    folder = tmp_path / "cases"
    shutil.copytree(case_folder, folder)
    next((folder / "case5").glob("*seg*")).write_bytes(b"nonsense")
    plan = toy_plan.model_copy(update={"cases": (folder,), "validation": ("case5", "case6")})
    data, _ = load(plan, tmp_path)
    assert [part.case.name for part in data.validation] == ["case6"]
    assert "case5" not in {part.case.name for part in data.training}


def test_reading_is_reported_case_by_case(toy_plan, tmp_path) -> None:
    phases = [event for event in load_data(toy_plan, tmp_path) if isinstance(event, PhaseReached)]
    assert phases == [PhaseReached("preparing 7 cases", number, 7) for number in range(7)]


def test_notes_on_a_case_s_files_are_passed_on(toy_plan, case_folder, tmp_path, monkeypatch) -> None:
    found = find_cases(case_folder)
    found[1] = replace(found[1], notes=("'x.nii.gz' is not used.",))
    monkeypatch.setattr(training_cases, "find_cases", lambda _: found)
    assert load(toy_plan, tmp_path)[1] == ["case1: 'x.nii.gz' is not used."]


def test_a_group_that_is_weighed_but_not_there_is_noted(toy_plan, tmp_path) -> None:
    _, notes = load(toy_plan.model_copy(update={"group_weights": {"brast": 2.0, "other": 1.0}}), tmp_path)
    assert notes == ["The plan weighs groups that have no cases here: brast."]


def test_a_cache_that_cannot_be_written_ends_the_run_and_costs_no_case_in_silence(toy_plan, tmp_path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DataError, match=r"cannot be cached in .* Make room there, or raise cache_gb"):
        load(toy_plan.model_copy(update={"cache_gb": 0.0}), tmp_path / "cache")


def test_the_twin_of_a_held_out_patient_is_not_even_read(toy_plan, tmp_path) -> None:
    data, _ = load(toy_plan.model_copy(update={"patients": {"case2": "case7"}}), tmp_path)
    assert {part.case.name for part in (*data.training, *data.validation)} == {f"case{n}" for n in (0, 1, 3, 4, 5, 6)}


def test_the_twin_of_a_validation_patient_is_validated_on(toy_plan, tmp_path) -> None:
    data, _ = load(toy_plan.model_copy(update={"patients": {"case2": "case6"}}), tmp_path)
    assert {part.case.name for part in data.validation} == {"case2", "case6"}
    assert data.split.validation == ("case6",)


def test_a_folder_without_a_usable_case_is_refused_with_the_first_reason(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"modalities": ("DWI",), "validation": 0.5, "held_out": ()})
    with pytest.raises(DataError, match=r"None of the 8 cases found can be trained on\. The first: case0 is left"):
        load(plan, tmp_path)


def test_one_patient_alone_cannot_be_split(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"cases": (case_folder / "case0",), "validation": 0.5, "held_out": ()})
    with pytest.raises(DataError, match="1 patients with a usable mask were found"):
        load(plan, tmp_path)


def test_cases_beyond_the_memory_bound_are_kept_in_files_and_read_the_same(toy_plan, data, tmp_path) -> None:
    mapped, _ = load(toy_plan.model_copy(update={"cache_gb": 0.0}), tmp_path / "cache")
    assert mapped.megabytes == 0
    assert data.megabytes > 0
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 21
    for one, two in zip(data.training, mapped.training, strict=True):
        assert np.array_equal(one.case.prepared.data, two.case.prepared.data)
        assert np.array_equal(one.case.prepared.foreground, two.case.prepared.foreground)
        assert np.array_equal(one.case.regions, two.case.regions)


def test_the_same_case_in_two_folders_is_refused(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"cases": (case_folder, case_folder / "case0")})
    with pytest.raises(DataError, match="'case0' was found in more than one"):
        load(plan, tmp_path)


def test_what_is_measured_of_the_replay_set_is_not_drawn_from(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(
        update={
            "cases": (case_folder / "case0",),
            "validation": 0.2,
            "held_out": (),
            "start_from": "x",
            "fine_tuning": FineTuning(replay=(case_folder,), replay_cases=2),
        }
    )
    data, _ = load(plan, tmp_path)
    drawn, judged = ({part.case.name for part in side} for side in (data.replay, data.replay_judged))
    assert "case0" not in drawn | judged
    assert not drawn & judged
    assert len(judged) == 2
    assert data.split.by_slice


def test_the_replay_set_has_no_case_of_a_patient_who_is_learned_from_validated_on_or_held_out(
    toy_plan, case_folder, tmp_path
) -> None:
    update = {
        "cases": (case_folder / "case0", case_folder / "case1", case_folder / "case7"),
        "validation": ("case1",),
        "patients": {"case2": "case0", "case3": "case1", "case4": "case7"},
        "start_from": "x",
    }
    for replay, expected in (((case_folder,), {"case5", "case6"}), ((case_folder / "case4",), set())):
        tuning = FineTuning(replay=replay)
        data, notes = load(toy_plan.model_copy(update={**update, "fine_tuning": tuning}), tmp_path)
        assert {part.case.name for part in (*data.replay, *data.replay_judged)} == expected
        assert expected or "All cases of the replay set are of patients that are learned from" in notes[0]


@pytest.mark.parametrize("reviewed", [(4,), (4, 6)])
def test_a_fine_tuning_of_too_few_slices_is_refused_before_it_starts(
    toy_plan, case_folder, tmp_path, monkeypatch, reviewed
) -> None:
    found = [replace(find_cases(case_folder)[0], reviewed=reviewed)]
    monkeypatch.setattr(training_cases, "find_cases", lambda _: found)
    update = {"validation": 0.2, "held_out": (), "start_from": "x", "fine_tuning": FineTuning()}
    with pytest.raises(DataError, match="Fine-tuning needs at least 3 reviewed slices"):
        load(toy_plan.model_copy(update=update), tmp_path)


def test_slices_of_a_patient_set_to_training_are_all_learned_from(toy_plan, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"split_by": "slice", "validation": 0.25, "training": ("case0", "case3")})
    data, _ = load(plan, tmp_path)
    assert {part.case.name for part in data.validation} == {"case1", "case2", "case4", "case5", "case6"}
    assert all(len(p.slices) == len(p.case.counted) for p in data.training if p.case.name in ("case0", "case3"))


def test_who_is_on_which_side_is_written_down_by_name_and_slice(toy_plan, case_folder, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"split_by": "slice", "validation": 0.25})
    data, _ = load(plan, tmp_path)
    split = data.describe()
    assert split["by"] == "slice"
    learned, judged = split["training"]["case0"], split["validation"]["case0"]
    assert not set(learned) & set(judged)
    assert sorted(learned + judged) == list(range(min(learned + judged), max(learned + judged) + 1))
