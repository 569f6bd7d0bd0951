from dataclasses import replace

import dask.array
import numpy as np
import pytest
from monai.transforms import NormalizeIntensity

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.inspecting.inspection import find_foreground
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.preparing.prepare import (
    fill_foreground,
    prepare,
    prepare_for,
    prepare_slices,
    survey,
)
from napari_braintumor.engine.preparing.working_grid import working_shape
from napari_braintumor.engine.volumes import StreamedVolume
from toy_cases import make_case


def test_intensities_become_z_scores_over_the_head_and_zero_outside(make_volume) -> None:
    volume, _ = make_volume(0)
    prepared = prepare(volume, MODALITIES)
    values = prepared.data[3][prepared.foreground]
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.std() == pytest.approx(1, abs=0.1)
    assert (prepared.data[:, ~prepared.foreground] == 0).all()


def test_a_card_may_ask_for_the_z_scores_of_monai_s_bundles(make_volume) -> None:
    volume, _ = make_volume(0)
    card = ModelCard(name="a", architecture="monai_segresnet", normalization="nonzero z-score")
    prepared = prepare_for(card, volume, 16, crop=False)
    expected = NormalizeIntensity(nonzero=True, channel_wise=True)(volume.data).numpy()
    np.testing.assert_allclose(prepared.data[:, :, : volume.shape[1], : volume.shape[2]], expected, atol=1e-4)


def test_a_card_may_ask_for_the_z_scores_of_buda_s_network(make_volume) -> None:
    volume, _ = make_volume(0)
    card = ModelCard(name="a", architecture="buda_unet", normalization="percentile z-score")
    clipped = np.clip(volume.data, *np.percentile(volume.data, (10, 99)))
    means, deviations = (f(clipped, axis=(1, 2, 3), keepdims=True) for f in (np.mean, np.std))
    prepared = prepare_for(card, volume, 8)
    assert prepared.data.shape == volume.data.shape  # the whole frame: air is not zero here
    np.testing.assert_allclose(prepared.data, (clipped - means) / deviations, atol=1e-4)


def test_scaling_an_image_changes_nothing(make_volume) -> None:
    volume, _ = make_volume(0)
    scaled = replace(volume, data=volume.data * 7)
    assert prepare(scaled, MODALITIES).data == pytest.approx(prepare(volume, MODALITIES).data, abs=1e-4)


def test_absent_modalities_are_zero_and_order_follows_the_card(make_volume) -> None:
    volume, _ = make_volume(0)
    shuffled = volume.with_modalities(("FLAIR", "T1"))
    prepared = prepare(shuffled, MODALITIES)
    whole = prepare(volume, MODALITIES)
    assert prepared.present.tolist() == [True, False, False, True]
    assert (prepared.data[1:3] == 0).all()
    assert np.corrcoef(prepared.data[3].ravel(), whole.data[3].ravel())[0, 1] > 0.99


def test_the_crop_holds_the_head_and_its_sides_and_corner_are_multiples_of_the_divisor(make_volume) -> None:
    volume, _ = make_volume(0)
    prepared = prepare(volume, MODALITIES, divisor=16)
    full = prepare(volume, MODALITIES, divisor=16, crop=False)
    assert prepared.foreground.sum() == full.foreground.sum()
    assert all(s.start % 16 == 0 and (s.stop - s.start) % 16 == 0 for s in prepared.box[1:])


def test_the_crop_holds_the_same_values_as_the_frame(make_volume) -> None:
    volume, _ = make_volume(0)
    prepared = prepare(volume, MODALITIES)
    full = prepare(volume, MODALITIES, crop=False)
    assert np.array_equal(prepared.data, prepared.crop(full.data))


def test_the_working_grid_keeps_the_extent_of_the_case() -> None:
    assert working_shape((155, 240, 240), (1, 1, 1), (None, 2.0, 2.0)) == (155, 120, 120)
    assert working_shape((20, 256, 255), (5, 0.9, 0.9), (None, 2.0, 2.0)) == (20, 115, 115)
    assert working_shape((20, 256, 255), (5, 0.9, 0.9), (1.0, None, None)) == (100, 256, 255)


def test_a_head_is_distinguished_from_a_noisy_background() -> None:
    random = np.random.default_rng(0)
    image = np.abs(random.normal(0, 8, (8, 64, 64))).astype(np.float32)
    image[:, 16:48, 20:44] += 400
    found = fill_foreground(find_foreground(image))
    assert found[:, 16:48, 20:44].all()
    assert found.mean() == pytest.approx(32 * 24 / 64**2, abs=0.02)


def test_negative_intensities_of_a_brain_on_a_zero_background_belong_to_the_head(make_volume) -> None:
    volume, _ = make_volume(0)
    standardized = np.where(volume.data != 0, (volume.data - 100) / 10, 0).astype(np.float32)
    head = prepare(volume, MODALITIES, crop=False).foreground
    found = prepare(replace(volume, data=standardized), MODALITIES, crop=False).foreground
    assert (head ^ found).sum() < 0.02 * head.sum()


def test_a_case_without_any_modality_of_the_model_is_refused(make_volume) -> None:
    volume, _ = make_volume(0)
    with pytest.raises(DataError, match="'case0' has T1, but the model needs at least one of FLAIR"):
        prepare(volume.with_modalities(("T1",)), ("FLAIR",))


def test_an_image_of_background_only_has_no_head(make_volume) -> None:
    volume, _ = make_volume(0)
    with pytest.raises(DataError, match="No head was found in 'case0'"):
        prepare(replace(volume, data=np.zeros_like(volume.data), source=default_grid(volume.shape)), MODALITIES)


@pytest.mark.parametrize("factor", [1e-30, 1e-7, 1e-3, 1e7, 1e30])
@pytest.mark.parametrize("streamed", [False, True])
def test_intensities_of_any_size_are_scaled_alike(make_volume, factor: float, streamed: bool) -> None:
    volume, _ = make_volume(0)
    plain = prepare(volume, MODALITIES, (None, 1.3, 1.3))
    scaled = replace(volume, data=(volume.data * np.float64(factor)).astype(np.float32))
    given = StreamedVolume(tuple(scaled.data), volume.modalities, volume.source) if streamed else scaled
    known = survey(given, MODALITIES, (None, 1.3, 1.3))
    assert np.array_equal(known.foreground, plain.foreground)
    data = prepare_slices(given, MODALITIES, known, np.arange(len(known.foreground)))
    np.testing.assert_allclose(data, plain.data, atol=1e-4)


@pytest.mark.parametrize(
    "chunks",
    [(256, 24, 24), (400, 24, 24), (512, 24, 24), ((100, 3, 297), 24, 24), (64, 8, 8), (400, 7, 24), (1, 24, 24)],
)
@pytest.mark.parametrize("slices", [400, 1240])
def test_a_stream_of_any_chunks_is_prepared_as_the_volume_in_memory(slices: int, chunks: tuple) -> None:
    volume, _ = make_case(1, (slices, 24, 24), (0.5, 2, 2))
    volume = volume.with_modalities(("FLAIR",))
    if isinstance(chunks[0], tuple):
        chunks = ((*chunks[0][:-1], slices - sum(chunks[0][:-1])), *chunks[1:])
    plain = survey(volume, MODALITIES)
    image = dask.array.from_array(volume.data[0], chunks=chunks)
    streamed = StreamedVolume((image,), volume.modalities, volume.source, slab_slices=max(image.chunks[0]))
    known = survey(streamed, MODALITIES)
    assert np.array_equal(known.foreground, plain.foreground)
    assert np.array_equal(known.scales, plain.scales)
    some = np.array([0, 1, 255, 256, 300, len(known.foreground) - 1])
    assert np.array_equal(
        prepare_slices(streamed, MODALITIES, known, some), prepare_slices(volume, MODALITIES, plain, some)
    )


@pytest.mark.parametrize("spacing", [(1, 1000, 1000), (1, 1e6, 1e6), (1, 1e-3, 1e-3), (1, 1e-9, 1), (1, 1, 1e5)])
def test_a_voxel_size_that_no_head_has_is_refused_before_anything_is_allocated(make_volume, spacing) -> None:
    volume, _ = make_volume(0)
    impossible = replace(volume, source=default_grid(volume.shape, spacing))
    with pytest.raises(DataError, match=r"The voxels of 'case0' are .* Expected an image of 8 to 2000 mm"):
        survey(impossible, MODALITIES, (None, 2.0, 2.0))


def test_a_network_on_the_case_s_own_grid_takes_any_voxel_size(make_volume) -> None:
    volume, _ = make_volume(0)
    odd = replace(volume, source=default_grid(volume.shape, (1.0, 1e-9, 1e6)))
    assert survey(odd, MODALITIES).frame == volume.shape
