from importlib.util import find_spec

import numpy as np
import pytest
import torch

from napari_braintumor.engine import segment
from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.events import Noted, PhaseReached, Segmented
from napari_braintumor.engine.preparing import brain
from napari_braintumor.engine.preparing.brain import choose_scan, extract_brain
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import StreamedVolume

SHAPE, SPACING = (12, 72, 64), (10, 2, 2)


def add_skull(volume):
    """Dark bone and a scalp around the toy's brain, and noise around that."""
    random = np.random.default_rng(1)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in volume.shape), indexing="ij")
    scalp = ((y / 0.95) ** 2 + (x / 0.92) ** 2 + 0 * z < 1) & ((y / 0.87) ** 2 + (x / 0.83) ** 2 > 1)
    outside = np.where(scalp, random.normal(80, 9, volume.data.shape), np.abs(random.normal(0, 4, volume.data.shape)))
    return volume.__class__(
        np.where(volume.data == 0, outside, volume.data).astype(np.float32), volume.modalities, volume.source, "toy"
    )


@pytest.fixture
def stripped(make_volume):
    return make_volume(7, SHAPE, SPACING)[0]


@pytest.fixture
def known(monkeypatch, stripped):
    """deepbet is there and finds the toy's head; returns the modalities in which it looked."""
    whole, looked = add_skull(stripped), []

    def find(image):
        looked.append(next(m for m, data in zip(whole.modalities, whole.data, strict=True) if (data == image).all()))
        return stripped.data[0] != 0

    monkeypatch.setattr(brain, "find_brain", find)
    monkeypatch.setattr(brain, "find_spec", lambda name: object())
    return looked


def run(volume, model, **settings):
    *events, last = segment(volume, SegmentConfig(model=str(model), device="cpu", **settings))
    assert isinstance(last, Segmented)
    return events, last.segmentation


def test_the_brain_is_kept_and_a_rim_of_two_voxels_in_each_slice(stripped, known):
    whole = add_skull(stripped)
    extracted = extract_brain(whole)
    inside = stripped.data[0] != 0
    np.testing.assert_array_equal(extracted.data[:, inside], whole.data[:, inside])
    kept = (extracted.data != 0).any(0)
    for z in range(SHAPE[0]):
        if not inside[z].any():
            assert not kept[z].any()
            continue
        rows, grown = (np.flatnonzero(mask[z].any(1)) for mask in (inside, kept))
        assert (grown[0], grown[-1]) == (max(0, rows[0] - 2), min(SHAPE[1] - 1, rows[-1] + 2))
    assert extracted.notes[-1].startswith("The brain was extracted: ")
    assert known == ["T1"]


def test_asked_for_it_is_a_named_phase_noted_and_everything_is_used(stripped, known, toy_model):
    events, result = run(add_skull(stripped), toy_model, skull="strip")
    assert PhaseReached("extracting the brain") in events
    (note,) = (event.text for event in events if isinstance(event, Noted) and "extracted" in event.text)
    assert note in result.provenance["notes"]
    assert result.provenance["modalities_used"] == ["T1", "T1ce", "T2", "FLAIR"]
    assert not np.asarray(result.labels)[:, :4].any()


def test_a_case_without_the_skull_stays_as_it_is(stripped, known, toy_model):
    events, result = run(stripped, toy_model, skull="strip")
    assert not any(isinstance(event, PhaseReached) for event in events)
    assert known == []
    np.testing.assert_array_equal(result.labels, run(stripped, toy_model)[1].labels)


@pytest.mark.parametrize(
    ("modalities", "best"), [(("FLAIR", "T1ce", "T1"), "T1"), (("T2", "FLAIR"), "FLAIR"), (("DWI",), "DWI")]
)
def test_the_brain_is_looked_for_in_the_scan_that_shows_it_best(modalities, best):
    assert choose_scan(modalities) == best


def test_without_the_package_it_is_said_how_to_get_it(stripped, toy_model, monkeypatch):
    monkeypatch.setattr(brain, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs the package deepbet.*pip install 'napari-braintumor\[prepare\]'"):
        run(add_skull(stripped), toy_model, skull="strip")


def test_scans_that_are_read_slice_by_slice_are_refused(stripped, known, toy_model):
    whole = add_skull(stripped)
    streamed = StreamedVolume(tuple(whole.data), whole.modalities, whole.source)
    with pytest.raises(SettingsError, match="read slice by slice"):
        run(streamed, toy_model, skull="strip")


@pytest.mark.parametrize("found", [0.0, 0.01, 1.0])
def test_what_cannot_be_a_brain_is_refused(stripped, known, monkeypatch, found):
    whole = add_skull(stripped)
    monkeypatch.setattr(brain, "find_brain", lambda image: np.random.default_rng(0).random(image.shape) < found)
    monkeypatch.setattr(brain, "MOST_BRAIN_ML", 2000.0)
    with pytest.raises(DataError, match="No brain was found in T1 of 'toy': expected 400 to 2000 mL"):
        extract_brain(whole)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(find_spec("deepbet") is None, reason="needs the extra prepare")
def test_the_brain_of_a_real_head_is_found_quietly_the_right_way_round(real_data, capfd):
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case
    from napari_braintumor.engine.settings import AlignConfig

    volume = read_case(
        find_cases(real_data / "unlabelled/TCGA-FG-6692_native")[0], AlignConfig(registration="never", reference="T1")
    ).with_modalities(("T1",))
    threads = torch.get_num_threads()
    mask = brain.find_brain(volume.data[0])
    assert torch.get_num_threads() == threads
    assert capfd.readouterr() == ("", "")
    assert 1000 < mask.sum() * volume.source.voxel_ml < 2000
    middle = np.array(mask.nonzero()).mean(1) / mask.shape
    head = np.array((volume.data[0] > 100).nonzero()).mean(1) / mask.shape
    assert np.abs(middle - head)[2] < 0.05  # left and right
    inside = volume.data[0][mask]
    assert (inside > 0.3 * np.median(inside)).mean() > 0.97  # neither air nor bone
