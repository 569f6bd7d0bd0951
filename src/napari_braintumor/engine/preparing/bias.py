"""Even out slow changes of brightness across a scan, which its coils cause: N4 (SimpleITK).

N4ITK: Tustison et al., IEEE Transactions on Medical Imaging 2010, doi 10.1109/TMI.2010.2046908.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.aligning.registration import use_one_thread
from napari_braintumor.engine.errors import SettingsError
from napari_braintumor.engine.inspecting.foreground import find_background
from napari_braintumor.engine.volumes import AnyVolume, Volume

SHRUNK_MM = 4.0
"""The field is estimated on voxels of about this size: it is smoother than that by far."""

_FEWEST_VOXELS = 8
_ITERATIONS = (20, 20, 20)
_LEAST_APART = 1e-3
_MOST_DARKER = 0.02
"""A scan in which more than this share of tissue is darker than its background has no brightness that coils change."""


def check_correction(volume: AnyVolume) -> None:
    """Check that the brightness of a case can be corrected.

    Raises
    ------
    SettingsError
        If the case is read slice by slice.
    """
    if not isinstance(volume, Volume):
        raise SettingsError(
            f"The brightness of '{volume.name}' cannot be corrected, because its scans are read slice by slice. Load "
            "them into memory, or leave the correction out."
        )


def correct_bias(image_ZYX: NDArray[np.float32], spacing: tuple[float, float, float]) -> NDArray[np.float32] | None:
    """Correct the slow changes of brightness across a scan.

    Parameters
    ----------
    image_ZYX
        float32 ``(Z, Y, X)``.
    spacing
        mm along Z, Y, X.

    Returns
    -------
    ndarray or None
        float32 ``(Z, Y, X)``, equal to the last bit every time. What lies above the background is divided by a field
        whose mean over the tissue is 1. None if the scan has nothing to correct: no tissue, or intensities on both
        sides of the background, as after a z-score.
    """
    import SimpleITK as sitk

    background = find_background(image_ZYX)
    tissue = background.find_tissue(image_ZYX)
    apart = image_ZYX - np.float32(background.intensity)
    if not tissue.any() or np.count_nonzero(apart[tissue] < 0) > _MOST_DARKER * np.count_nonzero(tissue):
        return None
    image = sitk.GetImageFromArray(np.maximum(apart, _LEAST_APART))
    image.SetSpacing([float(side) for side in spacing[::-1]])
    mask = sitk.GetImageFromArray((tissue & (apart > 0)).astype(np.uint8))
    mask.CopyInformation(image)
    factors = [
        max(1, min(round(SHRUNK_MM / side), size // _FEWEST_VOXELS))
        for side, size in zip(spacing[::-1], image_ZYX.shape[::-1], strict=True)
    ]
    correction = sitk.N4BiasFieldCorrectionImageFilter()
    correction.SetMaximumNumberOfIterations(_ITERATIONS)
    with use_one_thread():
        try:
            correction.Execute(sitk.BinShrink(image, factors), sitk.BinShrink(mask, factors))
        except RuntimeError:  # SimpleITK's error where too little tissue is left
            return None
        field = np.exp(sitk.GetArrayFromImage(correction.GetLogBiasFieldAsImage(image)))
    if not np.isfinite(field).all():
        return None
    field /= field[tissue].mean()
    corrected: NDArray[np.float32] = (apart / field + background.intensity).astype(np.float32)
    return corrected
