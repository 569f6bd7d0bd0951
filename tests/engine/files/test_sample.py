from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder

TOOL = Path(__file__).parents[3] / "tools" / "make_sample_case.py"
NAMES = ("t1", "t1ce", "t2", "flair", "seg")
NECROSIS, EDEMA, ENHANCING = 1, 2, 3


@pytest.fixture(scope="module")
def images():
    return {name: nib.load(sample_folder() / f"sample_{name}.nii.gz") for name in NAMES}


@pytest.fixture(scope="module")
def arrays(images):
    return {name: np.asanyarray(image.dataobj) for name, image in images.items()}


def test_the_sample_case_is_small():
    paths = [sample_folder() / f"sample_{name}.nii.gz" for name in NAMES]
    assert sum(path.stat().st_size for path in paths) <= 4_000_000
    assert (sample_folder() / "README.md").is_file()


def test_all_files_lie_on_one_grid_in_millimeters(images):
    first = images["t1"]
    for image in images.values():
        assert image.shape == first.shape == (160, 192, 96)
        np.testing.assert_array_equal(image.affine, first.affine)
        np.testing.assert_array_equal(image.get_qform(), image.get_sform())
        assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(first.header.get_zooms(), (1, 1, 1.5))


def test_outside_the_brain_every_image_is_exactly_zero(arrays):
    brain = arrays["t1"] > 0
    for name in NAMES[:-1]:
        np.testing.assert_array_equal(arrays[name] > 0, brain)
    assert 1200 < brain.sum() * 1.5e-3 < 1800  # mL
    assert not brain[[0, -1]].any()
    assert not brain[:, [0, -1]].any()
    assert not (arrays["seg"][~brain]).any()


def test_every_label_is_there_in_a_believable_amount(arrays):
    labels, counts = np.unique(arrays["seg"], return_counts=True)
    assert labels.tolist() == [0, NECROSIS, EDEMA, ENHANCING]
    _, necrosis_ml, edema_ml, enhancing_ml = counts * 1.5e-3
    assert 35 < necrosis_ml + edema_ml + enhancing_ml < 60
    assert 12 < necrosis_ml + enhancing_ml < 20
    assert min(necrosis_ml, enhancing_ml) > 4


def test_each_tissue_has_the_brightness_it_has_on_clinical_scans(arrays):
    labels = arrays["seg"]
    healthy = (labels == 0) & (arrays["t1"] > 0)
    # On T1 the bright half of healthy tissue is white matter; fluid is what is brightest on T2.
    fluid = healthy & (arrays["t2"] > np.percentile(arrays["t2"][healthy], 97))
    white = healthy & (arrays["t1"] > np.percentile(arrays["t1"][healthy], 70))
    tissues = {"white": white, "fluid": fluid, "necrosis": labels == NECROSIS, "edema": labels == EDEMA}
    tissues["enhancing"] = labels == ENHANCING
    mean = {m: {t: arrays[m][mask].mean() for t, mask in tissues.items()} for m in NAMES[:-1]}

    t1, t1ce, t2, flair = (mean[m] for m in NAMES[:-1])
    assert t1["white"] > t1["edema"] > t1["necrosis"] > t1["fluid"]
    assert t1ce["enhancing"] > 1.3 * t1ce["white"]
    assert t1ce["white"] > t1ce["edema"] > t1ce["necrosis"] > t1ce["fluid"]
    assert t2["fluid"] > t2["necrosis"] > t2["edema"] > t2["white"]
    assert flair["edema"] > 1.3 * flair["white"] > 1.3 * flair["fluid"]
    assert t1["enhancing"] < t1["white"]


def test_the_sample_is_read_as_a_case_with_four_modalities_and_a_brats_2023_mask(arrays):
    (case,) = find_cases(sample_folder())
    volume = read_case(case)
    reference = read_reference(case)
    assert volume.modalities == MODALITIES
    assert volume.spacing == (1.5, 1.0, 1.0)
    assert reference.convention == "brats2023"
    np.testing.assert_array_equal(reference.source.to_source(reference.labels), arrays["seg"])


@pytest.mark.slow
@pytest.mark.skipif(not TOOL.is_file(), reason="tools are not in the source distribution")
def test_the_tool_builds_the_same_case_twice():
    pytest.importorskip("nilearn")
    import make_sample_case as tool

    coarse = (4.0, 4.0, 4.5)
    images, labels, affine = tool.make_case(coarse)
    again, labels_again, _ = tool.make_case(coarse)
    for name, image in images.items():
        np.testing.assert_array_equal(image, again[name])
    np.testing.assert_array_equal(labels, labels_again)
    assert np.unique(labels).tolist() == [0, NECROSIS, EDEMA, ENHANCING]
    np.testing.assert_allclose(np.diag(affine), (*coarse, 1))
