"""Slow changes of brightness are evened out, and nothing else of a scan changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moved_heads import make_grid, scan_head
from napari_braintumor.engine import segment
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.events import Noted, PhaseReached, Segmented
from napari_braintumor.engine.inspecting.foreground import find_background
from napari_braintumor.engine.preparing.bias import correct_bias
from napari_braintumor.engine.preparing.refining import refine
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume, Volume

SPACING = (6.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return scan_head("t1", make_grid(SPACING)).data


def make_field(shape: tuple[int, ...], strength: float = 1.0) -> np.ndarray:
    """A smooth field as of a coil: brighter to one side, and changing from top to bottom."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    return np.exp(strength * (0.3 * x + 0.2 * y**2 - 0.25 * z)).astype(np.float32)


def with_field(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    background = find_background(image).intensity
    return (background + (image - background) * field).astype(np.float32)


def spread_of(image: np.ndarray, other: np.ndarray) -> float:
    """How much the brightness of two images differs from place to place, in the head; 0 if it is the same factor."""
    background = find_background(other)
    tissue = background.find_tissue(other)
    ratio = (image[tissue] - find_background(image).intensity) / (other[tissue] - background.intensity)
    return float(np.std(np.log(np.maximum(ratio, 1e-6))))


@pytest.fixture(scope="module")
def uneven(head) -> np.ndarray:
    return with_field(head, make_field(head.shape))


@pytest.fixture(scope="module")
def evened(uneven) -> np.ndarray:
    return correct_bias(uneven, SPACING)


def test_a_smooth_field_is_removed_for_the_most_part(head, uneven, evened):
    before, after = spread_of(uneven, head), spread_of(evened, correct_bias(head, SPACING))
    print(f"spread of brightness {before:.3f} before, {after:.3f} after")
    assert after < before / 3


def test_the_result_is_the_same_to_the_bit_and_the_level_and_the_background_stay(uneven, evened):
    np.testing.assert_array_equal(correct_bias(uneven, SPACING), evened)
    assert evened.dtype == np.float32
    background = find_background(uneven)
    tissue = background.find_tissue(uneven)
    np.testing.assert_array_equal(evened[uneven == background.intensity], background.intensity)
    assert evened[tissue].mean() == pytest.approx(uneven[tissue].mean(), rel=0.1)


def test_what_a_scanner_added_to_every_voxel_does_not_matter(head, uneven, evened):
    moved = correct_bias((uneven - 1000).astype(np.float32), SPACING)
    np.testing.assert_allclose(moved + 1000, evened, atol=0.02 * head.max())


@pytest.mark.parametrize("slices", [1, 4])
def test_scans_of_few_slices_are_corrected_or_left(head, slices):
    middle = np.ascontiguousarray(with_field(head, make_field(head.shape))[10 : 10 + slices])
    corrected = correct_bias(middle, SPACING)
    assert corrected is None or (corrected.shape == middle.shape and np.isfinite(corrected).all())


@pytest.mark.parametrize(
    "image",
    [np.zeros((6, 20, 20), np.float32), np.random.default_rng(0).normal(size=(6, 20, 20)).astype(np.float32)],
    ids=["nothing", "a z-score"],
)
def test_images_without_a_scanners_intensities_are_left_as_they_are(image):
    if image.any():
        image[:, :5] = image[:, -5:] = 0
    assert correct_bias(image, SPACING) is None


def test_each_scan_is_a_phase_and_the_notes_say_what_was_done(make_volume):
    volume = make_volume(7)[0]
    normal = volume.data.copy()
    inside = normal[1] != 0
    normal[1, inside] = (normal[1, inside] - normal[1, inside].mean()) / normal[1, inside].std()
    *phases, last = refine(replace(volume, data=normal), n4=True)
    assert [event.phase for event in phases if isinstance(event, PhaseReached)] == [
        f"correcting the brightness of {modality}" for modality in volume.modalities
    ]
    assert isinstance(last, Volume)
    others = ", ".join(name for name in volume.modalities if name != volume.modalities[1])
    assert last.notes[-2:] == (
        f"Slow changes of brightness were corrected (N4) in {others}.",
        f"The brightness of {volume.modalities[1]} was left as it is: N4 needs a scanner's intensities.",
    )
    np.testing.assert_array_equal(last.data[1], normal[1])
    assert (last.data[0] != volume.data[0]).any()


def test_nothing_is_done_that_was_not_asked_for(make_volume):
    volume = make_volume(7)[0]
    assert list(refine(volume)) == [volume]


def test_a_result_says_that_brightness_was_corrected_and_belongs_to_the_scan_as_it_was(make_volume, toy_model):
    volume = make_volume(7)[0]
    *events, last = segment(volume, SegmentConfig(model=str(toy_model), device="cpu", n4=True))
    assert isinstance(last, Segmented)
    notes = [event.text for event in events if isinstance(event, Noted)]
    assert sum("N4" in note for note in notes) == 1
    provenance = last.segmentation.provenance
    assert provenance["settings"]["n4"] is True
    assert any("N4" in note for note in provenance["notes"])
    assert any(isinstance(event, PhaseReached) and "brightness of" in event.phase for event in events)
    assert last.segmentation.source is volume.source


def test_scans_that_are_read_slice_by_slice_cannot_be_corrected(make_volume, toy_model):
    volume = make_volume(7)[0]
    streamed = StreamedVolume(tuple(volume.data), volume.modalities, volume.source, "streamed")
    with pytest.raises(SettingsError, match="brightness of 'streamed' cannot be corrected"):
        list(segment(streamed, SegmentConfig(model=str(toy_model), device="cpu", n4=True)))
