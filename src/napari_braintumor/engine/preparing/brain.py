"""Extract the brain of a case that shows the skull, with deepbet.

deepbet: Fisch et al., Computers in Biology and Medicine 2024, doi 10.1016/j.compbiomed.2024.108845. The network and
its weights come with the package, so nothing is downloaded.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_braintumor.engine.errors import DataError, SettingsError
from napari_braintumor.engine.inspecting.foreground import find_background
from napari_braintumor.engine.volumes import AnyVolume, Volume

BEST_FIRST = ("T1", "T1ce", "FLAIR", "T2")
"""deepbet learned from T1."""

GROWN_VOX = 2
"""The mask is grown by this in each slice, because tumor at the surface of the brain is easily cut off. On the one case
with the skull whose tumor was drawn, whole tumor had Dice 0.845 so, 0.820 without, and 0.809 if slices above and below
count too."""

_IN_SLICES = np.array([np.zeros((3, 3)), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3))], np.bool_)

LEAST_BRAIN_ML, MOST_BRAIN_ML = 400.0, 2500.0
"""What is smaller or larger than this is not a brain; part of one in scans that do not show all of it."""

HOW_TO_INSTALL = "pip install 'napari-braintumor[prepare]'"


def check_extraction(volume: AnyVolume) -> None:
    """Check that the brain of a case can be extracted.

    Raises
    ------
    SettingsError
        If the package for it is not installed, or the case is read slice by slice.
    """
    if find_spec("deepbet") is None:
        raise SettingsError(
            f"Extracting the brain needs the package deepbet. Run {HOW_TO_INSTALL}, or choose the skull auto or keep."
        )
    if not isinstance(volume, Volume):
        raise SettingsError(
            f"The brain of '{volume.name}' cannot be extracted, because its scans are read slice by slice. Load them "
            "into memory, or choose the skull auto or keep."
        )


def choose_scan(modalities: tuple[str, ...]) -> str:
    """Return the modality in which the brain is found best."""
    return next((name for name in BEST_FIRST if name in modalities), modalities[0])


def extract_brain(volume: Volume) -> Volume:
    """Return a case with background outside of the brain, and a note that says so.

    Parameters
    ----------
    volume
        A case on an axial grid, with the skull.

    Returns
    -------
    Volume
        The same scans; the brain is found in one of them.

    Raises
    ------
    DataError
        If no brain is found.
    """
    modality = choose_scan(volume.modalities)
    brain = find_brain(volume.data[volume.modalities.index(modality)])
    size_ml = float(brain.sum()) * volume.source.voxel_ml
    if not brain.any() or (volume.source.spacing_known and not LEAST_BRAIN_ML <= size_ml <= MOST_BRAIN_ML):
        raise DataError(
            f"No brain was found in {modality} of '{volume.name}': expected {LEAST_BRAIN_ML:g} to {MOST_BRAIN_ML:g} "
            f"mL, found {size_ml:.0f}. Choose the skull auto or keep."
        )
    inside = ndimage.binary_dilation(brain, _IN_SLICES, iterations=GROWN_VOX)
    data = np.stack([np.where(inside, image, np.float32(find_background(image).intensity)) for image in volume.data])
    note = (
        f"The brain was extracted: {size_ml:.0f} mL, found in {modality} and grown by {GROWN_VOX} voxels in each slice."
    )
    return replace(volume, data=data, notes=(*volume.notes, note))


def find_brain(image_ZYX: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the mask of the brain in one scan with the skull; empty if none is found."""
    import torch
    from deepbet.bet import BrainExtraction

    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # how it loads its network is deprecated
        extraction = BrainExtraction(no_gpu=True)
        image_RAS = np.ascontiguousarray(image_ZYX[:, ::-1, ::-1].transpose(2, 1, 0))
        try:
            mask_RAS = extraction.postprocess(extraction.run_model(image_RAS) > 0.5)
        except (AssertionError, ValueError, IndexError, RuntimeError):  # it finds nothing to look at
            return np.zeros(image_ZYX.shape, np.bool_)
        finally:
            torch.set_num_threads(threads)
    brain: NDArray[np.bool_] = np.asarray(mask_RAS, np.bool_).transpose(2, 1, 0)[:, ::-1, ::-1]
    return brain
