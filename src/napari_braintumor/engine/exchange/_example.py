"""A piece of the sample case as a network sees it, for packages that carry an example with them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import MODALITIES
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.models.axes import to_network_axes
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import find_divisor
from napari_braintumor.engine.preparing.context import take_images
from napari_braintumor.engine.preparing.prepare import prepare_for

MIN_VOX = 48
"""Sides of a 3-D example: enough to see tumor in, and still a small file."""


def make_example(card: ModelCard) -> NDArray[np.float32]:
    """Return the part of the sample case around its tumor, prepared as the card says.

    Returns
    -------
    ndarray
        float32, of shape ``(1, C, y, x)`` for slices and ``(1, M, z, y, x)`` for volumes, in the network's axes. The
        sides are multiples of the divisor, and at least twice as long. Modalities that the sample case lacks are zero.
    """
    divisor = find_divisor(card.architecture, card.options)
    (case,) = find_cases(sample_folder())
    if not set(card.modalities) & set(MODALITIES):
        # Nothing is known of such images, so the example is only one of the right shape.
        card = card.model_copy(update={"modalities": (MODALITIES * 4)[: len(card.modalities)]})
    prepared = prepare_for(card, read_case(case), divisor)
    reference = read_reference(case)
    assert reference is not None
    tumor = np.argwhere(reference.regions["whole tumor"]).mean(0)
    center = [
        round(float(middle) * own / whole) - side.start
        for middle, own, whole, side in zip(tumor, prepared.frame, prepared.shape, prepared.box, strict=True)
    ]
    if card.spatial_dims == 2:
        data_CYX: NDArray[np.float32] = take_images(prepared, np.array([center[0]]))[:, 0]
        short = [max(0, 2 * divisor - side) for side in data_CYX.shape[1:]]
        return np.pad(data_CYX, [(0, 0), *((0, missing) for missing in short)])[None]
    side = max(2 * divisor, -(-MIN_VOX // divisor) * divisor)
    padded = np.pad(prepared.data, [(0, 0), *[(side, side)] * 3])
    cut = tuple(slice(at + side - side // 2, at + side - side // 2 + side) for at in center)
    patch_MZYX = torch.from_numpy(padded[(slice(None), *cut)])
    return np.ascontiguousarray(to_network_axes(patch_MZYX, card).numpy())[None]
