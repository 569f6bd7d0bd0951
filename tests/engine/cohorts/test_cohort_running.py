"""A cohort's run: what it writes, what it does not do again, and what one bad case costs."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest

from cohorts import read_outputs, write_cohort
from napari_braintumor.engine import segment_cohort
from napari_braintumor.engine.cohorts import casework
from napari_braintumor.engine.cohorts.cohort_events import (
    CaseDone,
    CaseProgressed,
    CaseStarted,
    CohortDone,
    CohortProgressed,
    CohortStarted,
    describe_event,
    describe_left,
)
from napari_braintumor.engine.cohorts.plan import CohortConfig, CohortPlan
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import CaseFailed
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.settings import SegmentConfig
from toy_cases import make_case, write_case


def plan_of(folder: Path, output: Path, model: Path, **settings) -> CohortPlan:
    config = CohortConfig(segmentation=SegmentConfig(model=str(model), device="cpu"), **settings)
    return CohortPlan(find_cases(folder), output, config)


def outcome(events: list) -> CohortDone:
    assert isinstance(events[-1], CohortDone)
    return events[-1]


@pytest.fixture(scope="module")
def done(tmp_path_factory, toy_model) -> tuple[Path, Path, list]:
    """A cohort of six with two broken ones, its results, and the events of its first run."""
    place = tmp_path_factory.mktemp("cohort")
    write_cohort(place / "cases", 6, broken=2)
    return place / "cases", place / "out", [*segment_cohort(plan_of(place / "cases", place / "out", toy_model))]


def test_each_good_case_has_a_result_and_each_bad_one_a_reason(done) -> None:
    _, output, events = done
    assert events[0] == CohortStarted(6, output)
    assert outcome(events) == CohortDone(4, 0, 2, output / "volumes.csv", output / "report.html")
    assert {event.case for event in events if isinstance(event, CaseDone)} == {"p00", "p01", "p02", "p03"}
    reasons = {event.case: event.reason for event in events if isinstance(event, CaseFailed)}
    assert set(reasons) == {"p04", "p05"}
    assert all("p0" in reason for reason in reasons.values())
    names = {path.name for path in output.iterdir()}
    results = {f"p0{n}_tumor{ending}" for n in range(4) for ending in (".nii.gz", ".json", ".png")}
    assert names == {*results, "volumes.csv", "report.html"}


def test_the_table_has_a_row_for_each_case_with_its_measurements(done) -> None:
    _, output, _ = done
    rows = list(csv.DictReader((output / "volumes.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["case"] for row in rows] == [f"p0{n}" for n in range(6)]
    assert [row["status"] for row in rows] == ["done"] * 4 + ["failed"] * 2
    labels = np.asarray(nib.load(output / rows[1]["labels"]).dataobj)
    assert float(rows[1]["whole_tumor_volume_ml"]) == pytest.approx(np.count_nonzero(labels) * 0.003, abs=1e-3)
    assert 0 < float(rows[1]["whole_tumor_across_mm"]) <= float(rows[1]["whole_tumor_axial_mm"])
    assert rows[1]["model"] == "toy"
    assert rows[4]["whole_tumor_volume_ml"] == ""
    assert "p04" in rows[4]["reason"]
    assert rows[4]["flags"] == "failed"


def test_progress_counts_all_cases_and_tells_the_time_left(done) -> None:
    progress = [event for event in done[2] if isinstance(event, CohortProgressed)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1] == CohortProgressed(6, 6, 0.0)
    assert any(event.left_s for event in progress[:-1])


def test_a_second_run_segments_nothing_and_changes_no_file(done, toy_model, monkeypatch) -> None:
    cases, output, _ = done
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*_tumor*")}
    report = (output / "report.html").read_bytes()
    monkeypatch.setattr(casework, "segment", None)
    events = [*segment_cohort(plan_of(cases, output, toy_model))]
    assert (outcome(events).segmented, outcome(events).reused, outcome(events).failed) == (0, 4, 2)
    assert all(event.reused for event in events if isinstance(event, CaseDone))
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in output.glob("*_tumor*")} == before
    assert (output / "report.html").read_bytes() == report


CHANGES = {
    "the scan": lambda cases, output, plan: write_case_again(cases / "p00"),
    "the labels are gone": lambda cases, output, plan: (output / "p00_tumor.nii.gz").unlink(),
    "the picture is gone": lambda cases, output, plan: (output / "p00_tumor.png").unlink(),
    "the record is gone": lambda cases, output, plan: (output / "p00_tumor.json").unlink(),
}


def write_case_again(folder: Path) -> None:
    path = folder / "p00_t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) * 1.01, image.affine), path)


@pytest.fixture
def pair(tmp_path, toy_model) -> CohortPlan:
    """Two cases that are done."""
    write_cohort(tmp_path / "cases", 2)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    assert outcome([*segment_cohort(plan)]).segmented == 2
    return plan


@pytest.mark.parametrize("change", CHANGES)
def test_only_the_case_that_lacks_its_result_is_segmented_again(pair, tmp_path, change) -> None:
    CHANGES[change](tmp_path / "cases", tmp_path / "out", pair)
    events = [*segment_cohort(pair)]
    assert {event.case: event.reused for event in events if isinstance(event, CaseDone)} == {"p00": False, "p01": True}
    again = [*segment_cohort(pair)]
    assert outcome(again).reused == 2


@pytest.mark.parametrize(
    "settings", [{"min_volume_ml": 0.5}, {"keep_largest": True}, {"threshold": 0.4}], ids=lambda each: next(iter(each))
)
def test_other_settings_segment_all_cases_again(pair, settings) -> None:
    changed = pair.config.segmentation.model_copy(update=settings)
    plan = replace(pair, config=pair.config.model_copy(update={"segmentation": changed}))
    assert outcome([*segment_cohort(plan)]).segmented == 2
    names = {path.name for path in pair.output.glob("*.nii.gz")}
    assert names == {"p00_tumor.nii.gz", "p01_tumor.nii.gz"}  # in place of the earlier ones, which nobody changed


def test_another_model_segments_again_but_its_place_on_disk_does_not_matter(pair, toy_model, tmp_path) -> None:
    from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model

    def run_with(model: Path) -> CohortDone:
        segmentation = pair.config.segmentation.model_copy(update={"model": str(model)})
        config = pair.config.model_copy(update={"segmentation": segmentation})
        return outcome([*segment_cohort(replace(pair, config=config))])

    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(toy_model.read_bytes())
    assert run_with(moved).reused == 2
    card = read_card(toy_model).model_copy(update={"version": "7"})
    assert run_with(save_model(tmp_path / "other.safetensors", load_weights(toy_model), card)).segmented == 2


def test_scans_that_were_moved_keep_their_result(pair, tmp_path) -> None:
    (tmp_path / "cases").rename(tmp_path / "elsewhere")
    assert outcome([*segment_cohort(replace(pair, cases=find_cases(tmp_path / "elsewhere")))]).reused == 2


def test_whoever_stops_iterating_keeps_what_the_network_has_given(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 3)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model)
    events = segment_cohort(plan)
    next(event for event in events if isinstance(event, CohortProgressed))
    events.close()
    assert (tmp_path / "out" / "p00_tumor.json").is_file()
    assert not (tmp_path / "out" / ".unfinished").exists()
    rest = outcome([*segment_cohort(plan)])
    assert (rest.segmented, rest.reused) == (2, 1)


@pytest.mark.parametrize("moment", [CaseStarted, CaseProgressed], ids=lambda each: each.__name__)
def test_a_case_that_was_not_finished_is_let_go_of(tmp_path, toy_model, moment) -> None:
    write_cohort(tmp_path / "cases", 2)
    events = segment_cohort(plan_of(tmp_path / "cases", tmp_path / "out", toy_model))
    next(event for event in events if isinstance(event, moment))
    events.close()
    assert not (tmp_path / "out" / ".unfinished").exists()


def test_an_interrupted_run_and_the_next_leave_what_one_run_leaves(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 4, broken=1)
    whole, parts = (plan_of(tmp_path / "cases", tmp_path / name, toy_model) for name in ("whole", "parts"))
    assert outcome([*segment_cohort(whole)]).segmented == 3
    events = segment_cohort(parts)
    next(event for event in events if isinstance(event, CaseDone))
    events.close()
    assert [*segment_cohort(parts)]
    assert read_outputs(whole.output) == read_outputs(parts.output)


def test_what_a_killed_process_left_unfinished_is_deleted(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 1)
    left = tmp_path / "out" / ".unfinished" / "left"
    left.mkdir(parents=True)
    import platform

    gone = {"host": platform.node(), "pid": 2**22 + 1, "created": 1.0}
    (left / "process.json").write_text(json.dumps(gone))
    other = left.with_name("other")
    other.mkdir()
    (other / "process.json").write_text(json.dumps({**gone, "host": "another machine"}))
    assert [*segment_cohort(plan_of(tmp_path / "cases", tmp_path / "out", toy_model))]
    assert not left.exists()
    assert other.exists()


def test_without_tables_only_labels_and_records_are_written(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 1)
    plan = replace(plan_of(tmp_path / "cases", tmp_path / "out", toy_model, pictures=False), tables=False)
    assert outcome([*segment_cohort(plan)]) == CohortDone(1, 0, 0)
    assert {path.name for path in plan.output.iterdir()} == {"p00_tumor.nii.gz", "p00_tumor.json"}


def test_labels_on_all_grids_are_there_or_made_again(tmp_path, toy_model) -> None:
    case = write_case(tmp_path / "cases", make_case(7)[0])
    path = case / "case7_t1.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[..., :-1], image.affine), path)
    plan = plan_of(tmp_path / "cases", tmp_path / "out", toy_model, on="all")
    assert outcome([*segment_cohort(plan)]).segmented == 1
    assert (tmp_path / "out" / "case7_on_T1_tumor.nii.gz").is_file()
    assert outcome([*segment_cohort(plan)]).reused == 1
    (tmp_path / "out" / "case7_on_T1_tumor.nii.gz").unlink()
    assert outcome([*segment_cohort(plan)]).segmented == 1


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 1)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"out' cannot be written to: .*Choose another folder"):
        next(segment_cohort(plan_of(tmp_path / "cases", tmp_path / "out", toy_model)))


def test_labels_of_a_bids_dataset_are_nifti(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 1)
    plan = replace(plan_of(tmp_path / "cases", tmp_path / "out", toy_model, suffix=".nrrd"), bids=tmp_path)
    with pytest.raises(SettingsError, match=r"cannot be written as '.nrrd'"):
        next(segment_cohort(plan))


def test_every_event_can_be_written_as_json(done) -> None:
    lines = [json.loads(json.dumps(describe_event(event))) for event in done[2]]
    assert {line["event"] for line in lines} == {
        "started", "case_started", "case_progress", "case_done", "case_failed", "progress", "done",
    }  # fmt: skip
    assert lines[-1]["segmented"] == 4
    first = next(line for line in lines if line["event"] == "case_done")
    assert first["volumes_ml"]["whole tumor"] > 0
    assert Path(first["files"][0]).name == "p00_tumor.nii.gz"


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.3, "12 s"), (59.4, "59 s"), (300, "5 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min")]
)
def test_time_left_is_told_as_people_do(seconds: float, words: str) -> None:
    assert describe_left(seconds) == words


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_over_two_hundred_cases(tmp_path, toy_model) -> None:
    write_cohort(tmp_path / "cases", 200)
    process = psutil.Process()
    events = segment_cohort(plan_of(tmp_path / "cases", tmp_path / "out", toy_model))
    used_mb = []
    for event in events:
        if isinstance(event, CohortProgressed) and event.done > len(used_mb):  # what a case has freed is given back
            used_mb.append(process.memory_info().rss / 2**20)
    after = " ".join(f"{mb:.0f}" for mb in used_mb[9::20])
    print(f"MB after each 20th case: {after}, at most {max(used_mb):.0f}, at the end {used_mb[-1]:.0f}")
    assert len(used_mb) == 200
    assert max(used_mb[9:]) <= 1.05 * used_mb[9]
