from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from napari_braintumor import engine
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, labels_by_region, region_from_labels
from napari_braintumor.engine.errors import ModelError, SettingsError
from napari_braintumor.engine.events import (
    Compared,
    ModelSegmented,
    Noted,
    Segmented,
    SegmentEvent,
    SlicesDone,
    Started,
)
from napari_braintumor.engine.measuring import comparison
from napari_braintumor.engine.measuring.comparison import compare_segmentations, count_dissenters
from napari_braintumor.engine.measuring.metrics import HD95_OF_A_MISS_MM, hd95_mm, volume_dice
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.store import ModelStore, StoredModel
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Reference, Segmentation, StreamedVolume, Volume

CARDS = {
    "a": ModelCard(name="a", architecture="unet", accepts_missing=True),
    "b": ModelCard(name="b", architecture="unet", accepts_missing=True),
    "whole": ModelCard(name="whole", architecture="unet", accepts_missing=True, regions=GLIOMA_REGIONS[:1]),
    "core": ModelCard(name="core", architecture="unet", accepts_missing=True, regions=GLIOMA_REGIONS[1:]),
    "needy": ModelCard(name="needy", architecture="unet"),
}


@pytest.fixture
def labels(volume: Volume) -> np.ndarray[Any, Any]:
    """Random labels, so that no two models agree by chance everywhere."""
    return np.random.default_rng(1).integers(0, 4, volume.shape).astype(np.uint8)


@pytest.fixture
def result(segmentation: Segmentation) -> Any:
    """Make a result of labels, for the regions of a card."""

    def make(labels: np.ndarray[Any, Any], card: str = "a") -> Segmentation:
        regions = CARDS[card].regions
        return replace(
            segmentation,
            labels=labels,
            regions=labels_by_region(regions),
            label_names={region.label: region.label_name for region in regions},
            label_colors={region.label: region.color for region in regions},
        )

    return make


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, result: Any, labels: np.ndarray[Any, Any]) -> list[str]:
    """A store and a network without files: each model finds the same labels, moved by as many slices as ran before."""
    ran: list[str] = []

    def find(self: ModelStore, name: str) -> StoredModel:
        return StoredModel(name, Path(name), CARDS[Path(name).stem])

    def segment(volume: Volume, config: SegmentConfig) -> Iterator[SegmentEvent]:
        yield Noted("The model does not use T2.")
        yield Started("CPU", "torch")
        yield from (SlicesDone(done, 2) for done in (1, 2))
        moved = np.roll(labels, len(ran), axis=0)
        ran.append(config.model)
        yield Segmented(result(moved, Path(config.model).stem))

    monkeypatch.setattr(ModelStore, "find", find)
    monkeypatch.setattr(comparison, "segment", segment)
    return ran


def configs(*models: str) -> list[SegmentConfig]:
    return [SegmentConfig(model=model) for model in models]


def test_models_run_one_after_another_and_progress_counts_over_all(fake: list[str], volume: Volume) -> None:
    events = list(engine.compare(volume, configs("a", "b")))
    assert fake == ["a", "b"]
    assert [(e.done, e.total) for e in events if isinstance(e, SlicesDone)] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [e.model for e in events if isinstance(e, ModelSegmented)] == ["a", "b"]
    assert [e.text for e in events if isinstance(e, Noted)][1] == "b: The model does not use T2."
    assert isinstance(events[-1], Compared)
    assert events[-1].comparison.models == ("a", "b")


def test_whoever_stops_iterating_has_canceled(fake: list[str], volume: Volume) -> None:
    for event in engine.compare(volume, configs("a", "b")):
        if isinstance(event, ModelSegmented):
            break
    assert fake == ["a"]


def test_two_models_of_one_name_can_be_distinguished(fake: list[str], volume: Volume) -> None:
    events = list(engine.compare(volume, configs("a", "mine/a", "b")))
    assert [e.model for e in events if isinstance(e, ModelSegmented)] == ["a (1)", "a (2)", "b"]


def test_one_model_cannot_be_compared(fake: list[str], volume: Volume) -> None:
    with pytest.raises(SettingsError, match=r"1 model is selected\. Comparing needs at least two"):
        list(engine.compare(volume, configs("a")))


def test_models_without_a_common_region_are_refused_before_any_runs(fake: list[str], volume: Volume) -> None:
    with pytest.raises(SettingsError, match="no region in common"):
        list(engine.compare(volume, configs("whole", "core")))
    assert fake == []


def test_a_model_that_lacks_modalities_is_refused_before_any_runs(
    fake: list[str], volume: Volume, synthetic_volume: Any
) -> None:
    with pytest.raises(ModelError, match="'needy' needs T1, T1ce, T2, FLAIR"):
        list(engine.compare(synthetic_volume(("T1",)), configs("a", "needy")))
    assert fake == []


def test_volumes_and_dice_are_those_of_the_masks(volume: Volume, labels: np.ndarray[Any, Any], result: Any) -> None:
    other = np.roll(labels, 1, axis=1)
    compared = compare_segmentations(volume, ("a", "b"), [result(labels), result(other)])
    assert compared.regions == ("whole tumor", "tumor core", "enhancing tumor")
    for region in compared.regions:
        one, two = region_from_labels(labels, region), region_from_labels(other, region)
        assert compared.dice[0, 1][region] == pytest.approx(volume_dice(one, two))
        assert compared.volumes_ml[0][region] == pytest.approx(np.count_nonzero(one) * np.prod(volume.spacing) / 1000)
    assert compared.seconds == (1.5, 1.5)
    assert compared.against_reference == ({"dice": {}, "hd95_mm": {}},) * 2


def test_a_reference_is_compared_in_the_regions_that_it_defines(
    volume: Volume, labels: np.ndarray[Any, Any], result: Any
) -> None:
    drawn = {region: region_from_labels(np.roll(labels, 2, axis=2), region) for region in ("whole tumor", "tumor core")}
    reference = Reference(drawn, "some", volume.source)
    compared = compare_segmentations(volume, ("a", "w"), [result(labels), result(labels, "whole")], reference)
    assert (
        set(compared.against_reference[0]["dice"])
        == set(compared.against_reference[0]["hd95_mm"])
        == {"whole tumor", "tumor core"}
    )
    assert set(compared.against_reference[1]["dice"]) == {"whole tumor"}
    core = region_from_labels(labels, "tumor core")
    assert compared.against_reference[0]["dice"]["tumor core"] == pytest.approx(volume_dice(core, drawn["tumor core"]))
    assert compared.against_reference[0]["hd95_mm"]["tumor core"] == hd95_mm(core, drawn["tumor core"], volume.source)
    assert compared.reference_ml["whole tumor"] > compared.reference_ml["tumor core"]


def test_what_nobody_finds_agrees_and_what_one_misses_is_far_away(volume: Volume, result: Any) -> None:
    nothing, all_of_it = np.zeros(volume.shape, np.uint8), np.full(volume.shape, 2, np.uint8)
    reference = Reference({"whole tumor": all_of_it > 0}, "whole", volume.source)
    compared = compare_segmentations(volume, ("a", "b"), [result(nothing), result(nothing)], reference)
    assert compared.dice[0, 1] == {"whole tumor": 1.0, "tumor core": 1.0, "enhancing tumor": 1.0}
    assert compared.against_reference[0]["dice"] == {"whole tumor": 0.0}
    assert compared.against_reference[0]["hd95_mm"] == {"whole tumor": HD95_OF_A_MISS_MM}
    assert compared.disagreement_ml == 0


def test_disagreement_counts_those_who_do_not_go_with_the_majority() -> None:
    votes = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]], bool)
    assert count_dissenters([votes]).tolist() == [0, 1, 2, 1, 0]
    assert count_dissenters([votes, np.zeros_like(votes)]).tolist() == [0, 1, 2, 1, 0]
    assert count_dissenters([votes[:2]]).tolist() == [0, 0, 0, 1, 0]


def test_models_that_find_less_disagree_only_in_what_all_find(
    volume: Volume, labels: np.ndarray[Any, Any], result: Any
) -> None:
    coarse = np.where(labels > 0, 2, 0).astype(np.uint8)
    compared = compare_segmentations(volume, ("a", "w"), [result(labels), result(coarse, "whole")])
    assert not compared.disagreement.any()
    assert set(compared.dice[0, 1]) == {"whole tumor"}
    compared = compare_segmentations(volume, ("a", "b"), [result(labels), result(coarse)])
    np.testing.assert_array_equal(compared.disagreement > 0, np.isin(labels, (1, 3)))
    assert compared.disagreement_ml == pytest.approx(np.isin(labels, (1, 3)).sum() * np.prod(volume.spacing) / 1000)


def test_a_region_that_one_model_cannot_measure_is_compared_with_nobody_s(
    volume: Volume, labels: np.ndarray[Any, Any], result: Any
) -> None:
    less = replace(result(labels), not_measurable={"tumor core": "not measurable without T1ce"})
    compared = compare_segmentations(volume, ("a", "b"), [result(labels), less])
    assert set(compared.dice[0, 1]) == {"whole tumor", "enhancing tumor"}
    assert set(compared.volumes_ml[1]) == {"whole tumor", "enhancing tumor"}


def test_a_region_is_its_label_and_those_within(result: Any, volume: Volume, labels: np.ndarray[Any, Any]) -> None:
    for card in ("a", "core"):
        for region in (r.name for r in CARDS[card].regions):
            np.testing.assert_array_equal(result(labels, card).mask_of(region), region_from_labels(labels, region))


def test_a_streamed_case_gives_the_same_and_its_disagreement_stays_compressed(
    volume: Volume, labels: np.ndarray[Any, Any], result: Any
) -> None:
    streamed = StreamedVolume(tuple(volume.data), volume.modalities, volume.source, volume.name, slab_slices=2)
    other = np.roll(labels, 1, axis=0)
    plain = compare_segmentations(volume, ("a", "b"), [result(labels), result(other)])
    compared = compare_segmentations(streamed, ("a", "b"), [result(zarr.array(labels)), result(zarr.array(other))])
    assert isinstance(compared.disagreement, zarr.Array)
    np.testing.assert_array_equal(compared.disagreement[:], plain.disagreement)
    assert (compared.dice, compared.volumes_ml) == (plain.dice, plain.volumes_ml)
