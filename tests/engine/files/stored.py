"""Small scans on disk for the tests of finding and reading cases."""

import nibabel as nib
import numpy as np
import tifffile

ALL = ("T1", "T1ce", "T2", "FLAIR")
SHAPE = (6, 8, 10)  # Z, Y, X
OLD, NEW = ("t1", "t1ce", "t2", "flair"), ("t1n", "t1c", "t2w", "t2f")


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def ramp(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).integers(1, 200, shape).astype(np.uint8)


def save_nifti(path, array_ZYX, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array_ZYX.T, np.diag([-1.0, -1, 5, 1]) if affine is None else affine), path)
    return path


def save_tiff(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
    return path


def described(case):
    """What a case is, with the names of its files only."""
    images = {image.modality: [path.name for path in image.paths] for image in case.images}
    return images, [path.name for path in case.reference]
