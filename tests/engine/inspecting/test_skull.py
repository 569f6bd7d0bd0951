from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.inspecting.skull import see_skull
from napari_braintumor.engine.volumes import StreamedVolume, Volume

MODALITIES = ("T1", "T2")


def make_head(skull, *, spacing=(5.0, 2.0, 2.0), offset=0.0, noise=4.0, low_contrast=False):
    """A brain of 16 x 13 cm; with the skull in a head of 21 x 17 cm, with a dark bone and air of some noise."""
    shape = tuple(round(mm / side) for mm, side in zip((150, 240, 200), spacing, strict=True))
    random = np.random.default_rng(0)
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * side for n, side in zip(shape, spacing, strict=True)), indexing="ij"
    )
    brain = (z / 65) ** 2 + (y / 80) ** 2 + (x / 65) ** 2 < 1
    bone = ((z / 72) ** 2 + (y / 90) ** 2 + (x / 74) ** 2 < 1) & ~brain
    head = (z / 80) ** 2 + (y / 105) ** 2 + (x / 85) ** 2 < 1
    tissue = random.normal(100, 12, (2, *shape))
    if low_contrast:  # bright fluid stretches the range, so that much of the brain looks like background
        tissue[1] = np.where(np.hypot(y, x) < 20, 2000, random.uniform(20, 200, shape))
    shown = (head & ~bone) if skull else brain
    air = np.abs(random.normal(0, noise, (2, *shape))) if skull else 0
    data = np.where(shown, tissue, air) + offset
    return Volume(data.astype(np.float32), MODALITIES, default_grid(shape, spacing))


def stream(volume, slab_slices=1):
    return StreamedVolume(tuple(volume.data), volume.modalities, volume.source, slab_slices=slab_slices)


@pytest.mark.parametrize("spacing", [(5.0, 2.0, 2.0), (1.5, 1.5, 1.5), (10.0, 1.0, 1.0), (2.0, 4.0, 2.0)], ids=str)
@pytest.mark.parametrize("skull", [True, False], ids=["with skull", "stripped"])
@pytest.mark.parametrize("way", [lambda volume: volume, stream, lambda volume: stream(volume, 8)],
                         ids=["in memory", "streamed", "in slabs"])  # fmt: skip
def test_a_head_with_its_skull_is_told_from_a_brain_thick_or_thin_and_streamed_or_not(spacing, skull, way):
    assert see_skull(way(make_head(skull, spacing=spacing))) == (MODALITIES if skull else ())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"skull": False, "offset": -300.0}, ()),  # background of another value than zero
        ({"skull": False, "low_contrast": True}, ()),
        ({"skull": True, "noise": 0.0}, MODALITIES),  # the scanner blanked the air
        ({"skull": True, "noise": 15.0}, MODALITIES),
        ({"skull": True, "offset": 500.0}, MODALITIES),
    ],
)
def test_neither_blank_air_nor_an_odd_background_or_contrast_misleads(options, expected):
    assert see_skull(make_head(**options)) == expected


PROCESSED = {
    "noise added": lambda image, random: image + random.normal(0, 3, image.shape),
    "much noise added": lambda image, random: image + random.normal(0, 8, image.shape),
    "noise of Rice": lambda image, random: np.hypot(*(part + random.normal(0, 3, image.shape) for part in (image, 0))),
    "smoothed": lambda image, _: ndimage.gaussian_filter(image, (0, 1, 1)),
    "resampled by splines": lambda image, _: ndimage.zoom(image, (1, 1.1, 1.1), order=3),
    "resampled by splines, z-scores": lambda image, _: ndimage.zoom(image, (1, 0.9, 0.9), order=3) / 40 - 1,
}


@pytest.mark.parametrize("known", [True, False], ids=["voxel size known", "unknown"])
@pytest.mark.parametrize("skull", [True, False], ids=["with skull", "stripped"])
@pytest.mark.parametrize("process", PROCESSED.values(), ids=PROCESSED)
def test_what_programs_do_to_a_scan_afterward_leaves_its_skull_or_its_lack_to_be_seen(process, skull, known):
    volume = make_head(skull)
    random = np.random.default_rng(1)
    data = np.stack([process(image, random) for image in volume.data]).astype(np.float32)
    source = replace(default_grid(data.shape[1:], volume.spacing), spacing_known=known)
    assert see_skull(Volume(data, MODALITIES, source)) == (MODALITIES if skull else ())


def test_noise_around_the_head_is_enough_where_the_voxel_size_is_not_known():
    for skull in (True, False):
        volume = make_head(skull)
        unknown = replace(volume, source=replace(volume.source, spacing_known=False))
        assert see_skull(unknown) == (MODALITIES if skull else ())


def test_one_scan_may_be_stripped_and_another_not():
    whole, brain = make_head(True), make_head(False)
    mixed = replace(whole, data=np.stack([brain.data[0], whole.data[1]]))
    assert see_skull(mixed) == ("T2",)


def test_only_a_few_slices_of_a_streamed_case_are_read_each_by_itself():
    read = []

    class Stored:
        def __init__(self, image):
            self.image, self.shape = image, image.shape

        def __getitem__(self, index):
            read.append(index)
            return self.image[index]

    volume = make_head(True, spacing=(1.0, 4.0, 4.0))
    see_skull(replace(stream(volume, 16), images=tuple(map(Stored, volume.data))))
    assert len(read) == 5 * len(MODALITIES)
    assert all(len(range(*index.indices(volume.shape[0]))) == 1 for index in read)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "stripped"),
    [("brats", True), ("brats_lgg", True), ("brats_more", True), ("brats_reg", True), ("lgg", False), ("btp", False),
     ("healthy", False), ("unlabelled/TCGA-FG-6692_native", False)],
)  # fmt: skip
def test_every_real_scan_is_seen_with_or_without_its_skull(real_data, folder, stripped):
    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case
    from napari_braintumor.engine.settings import AlignConfig

    for case in find_cases(real_data / folder):
        volume = read_case(case, AlignConfig(registration="never"))
        assert see_skull(volume) == (() if stripped else volume.modalities), case.name
        if stripped:
            sigma = [0.01 * np.percentile(image[image > 0], 95) for image in volume.data]
            noise = np.random.default_rng(0).normal(0, 1, volume.data.shape) * np.reshape(sigma, (-1, 1, 1, 1))
            assert see_skull(replace(volume, data=volume.data + noise.astype(np.float32))) == (), case.name
