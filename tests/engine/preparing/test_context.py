from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.preparing import context
from napari_braintumor.engine.preparing.context import find_neighbors, gather, prepare_images, take_images
from napari_braintumor.engine.preparing.prepare import prepare, survey
from napari_braintumor.engine.volumes import StreamedVolume, Volume
from toy_cases import make_case

MM = 3.0


def survey_at(slice_mm: float, context_mm: float | None = MM, slices: int = 12):
    volume, _ = make_case(0, (slices, 40, 40), (slice_mm, 2, 2))
    return survey(volume, MODALITIES, context_mm=context_mm)


@pytest.mark.parametrize(
    ("slice_mm", "step"),
    [(0.5, 6), (0.9, 3), (1.0, 3), (1.2, 3), (1.5, 2), (2.0, 2), (2.5, 1), (3.0, 1), (5.0, 1), (6.0, 1), (20.0, 1)],
)
def test_context_is_the_nearest_slice_in_mm_and_at_least_the_next_one(slice_mm: float, step: int) -> None:
    assert survey_at(slice_mm).context_step == step


def test_where_the_distance_of_slices_is_not_known_context_is_the_next_slice() -> None:
    volume, _ = make_case(0, (12, 40, 40), (1, 1, 1))
    unknown = replace(volume, source=replace(volume.source, spacing_known=False))
    assert survey(unknown, MODALITIES, context_mm=MM).context_step == 1


def test_context_goes_by_the_distance_of_slices_on_the_working_grid() -> None:
    volume, _ = make_case(0, (36, 40, 40), (1, 2, 2))
    assert survey(volume, MODALITIES, (3.0, None, None), context_mm=MM).context_step == 1


def test_a_model_without_context_sees_its_slice_alone() -> None:
    prepared = prepare(make_case(0)[0], MODALITIES)
    assert prepared.context_step == 0
    some = np.array([2, 5])
    assert np.array_equal(take_images(prepared, some), prepared.data[:, some])


def test_beyond_the_ends_and_beside_a_single_slice_context_is_zero() -> None:
    prepared = prepare(make_case(0)[0], MODALITIES, context_mm=MM)
    last = len(prepared.foreground) - 1
    first, end = take_images(prepared, np.array([0, last])).swapaxes(0, 1)
    own, above, below = np.split(first, 3)
    assert np.array_equal(own, prepared.data[:, 0])
    assert np.array_equal(above, prepared.data[:, 1])
    assert not below.any()
    assert not np.split(end, 3)[1].any()
    one = replace(prepared, data=prepared.data[:, 4:5], foreground=prepared.foreground[4:5])
    assert not take_images(one, np.array([0]))[len(MODALITIES) :].any()


def test_scans_of_1_and_of_3_mm_show_the_same_context() -> None:
    thin, _ = make_case(3, (37, 48, 40), (1, 2, 2))
    thick = replace(thin, data=thin.data[:, ::3], source=default_grid((13, 48, 40), (3, 2, 2)))
    ours, theirs = (survey(volume, MODALITIES, context_mm=MM) for volume in (thin, thick))
    theirs = replace(theirs, scales=ours.scales)  # of other slices other means
    shared = np.arange(len(theirs.foreground))
    own_slices = (shared + theirs.box[0].start) * 3 - ours.box[0].start
    inner = slice(2, -2)
    (_, in_thick), (_, in_thin) = (
        next(prepare_images(volume, MODALITIES, known, slices[inner], 100))
        for volume, known, slices in ((thick, theirs, shared), (thin, ours, own_slices))
    )
    in_head = (in_thick != 0) & (in_thin != 0)
    assert in_head.mean() > 0.9 * (in_thick != 0).mean() > 0.2
    assert np.allclose(in_thick[in_head], in_thin[in_head], atol=1e-5)


VOLUME = make_case(1, (40, 32, 32), (1, 2, 2))[0]
PREPARED = {mm: prepare(VOLUME, MODALITIES, context_mm=mm) for mm in (None, 1.0, 3.0, 7.0)}


def stream(volume: Volume, slab: int) -> StreamedVolume:
    return StreamedVolume(tuple(volume.data), volume.modalities, volume.source, slab_slices=slab)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    slices=st.sets(st.integers(0, 36)).map(sorted),
    size=st.integers(1, 45),
    slab=st.integers(1, 50),
    context_mm=st.sampled_from(sorted(PREPARED, key=str)),
)
def test_images_are_the_same_however_slices_are_chunked_and_read(slices, size, slab, context_mm) -> None:
    whole = PREPARED[context_mm]
    wanted = np.array([each for each in slices if each < len(whole.foreground)], np.intp)
    volume = VOLUME if slab == 1 else stream(VOLUME, slab)
    chunks = list(prepare_images(volume, MODALITIES, whole, wanted, size))
    assert [len(chunk) for chunk, _ in chunks[:-1]] == [size] * (len(chunks) - 1)
    assert [each for chunk, _ in chunks for each in chunk] == wanted.tolist()
    for chunk, images in chunks:
        assert images.flags.c_contiguous
        assert np.array_equal(images, take_images(whole, chunk).swapaxes(0, 1))


@pytest.mark.parametrize("slab", [1, 5, 16])
def test_each_slice_is_prepared_once_and_only_if_it_is_seen(slab: int, monkeypatch) -> None:
    whole, prepared_ones = PREPARED[3.0], []
    real = context.prepare_slices

    def count(volume, modalities, known, slices):
        prepared_ones.extend(slices.tolist())
        return real(volume, modalities, known, slices)

    monkeypatch.setattr(context, "prepare_slices", count)
    searched = np.arange(0, 24, 3)
    list(prepare_images(stream(VOLUME, slab), MODALITIES, whole, searched, 4))
    assert prepared_ones == list(range(0, 25, 3))  # the slices beside those searched are searched ones, but the last


def test_slices_in_read_only_files_are_gathered(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.arange(24, dtype=np.float16).reshape(2, 3, 2, 2))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    seen = find_neighbors(np.array([2]), 1, 3)
    assert seen.ravel().tolist() == [2, -1, 1]
    images = gather(mapped, seen)
    assert images.shape == (6, 1, 2, 2)
    assert np.array_equal(images[4:, 0], mapped[:, 1])
    assert not images[2:4].any()
