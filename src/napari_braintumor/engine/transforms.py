"""The one preprocessing, made from a card and used alike for training and for use.

A case is resampled in memory to the network's working grid, its head is found, intensities become z-scores over the
head, everything outside the head becomes zero, and the array is cropped to the head. `Prepared` remembers enough to
bring the network's output back to the case's own grid.
"""

# M modality, R region, C channel (either), Z slice, Y row, X column

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from napari_braintumor.engine.card import ModelCard, Spacing
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.inspection import foreground
from napari_braintumor.engine.types import Volume

HEAD_MARGIN_VOX = 24
"""Working-grid voxels kept around the head in use: with fewer, what convolutions see at the border changes labels."""

CLIP_Z = 5.0
"""z-scores beyond this carry no more information than this."""

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as the network sees it.

    Attributes
    ----------
    data
        float32 ``(M, z, y, x)`` in the card's order of modalities, cropped to the head; absent modalities are zero.
    head
        bool ``(z, y, x)``, the head in the crop.
    present
        bool ``(M,)``, which modalities the case has.
    box
        Where the crop lies in the working frame. In Y and X it may reach beyond the frame, where data is zero.
    frame
        The shape of the whole working grid, Z, Y, X.
    shape
        The shape of the case's own grid, Z, Y, X.
    """

    data: NDArray[np.float32]
    head: NDArray[np.bool_]
    present: NDArray[np.bool_]
    box: Box
    frame: tuple[int, int, int]
    shape: tuple[int, int, int]

    def crop(self, array_CZYX: NDArray[Any]) -> NDArray[Any]:
        """Cut an array on the whole working grid to the crop, with zeros where the crop reaches beyond it."""
        return _cut(array_CZYX, self.box)

    def restore(self, crop_CZYX: torch.Tensor) -> torch.Tensor:
        """Bring network output on the crop (or on some of its slices) back to the in-plane grid of the case.

        Parameters
        ----------
        crop_CZYX
            ``(C, slices, y, x)``, logits on the crop.

        Returns
        -------
        Tensor
            ``(C, slices, Y, X)``; outside the crop the logits are -inf, that is, no tumor.
        """
        _, frame_y, frame_x = self.frame
        (y0, y1), (x0, x1) = ((s.start, s.stop) for s in self.box[1:])
        inside = crop_CZYX[..., : min(y1, frame_y) - y0, : min(x1, frame_x) - x0]
        scale_y, scale_x = self.shape[1] / frame_y, self.shape[2] / frame_x
        if scale_y == 1 and scale_x == 1:
            whole = inside.new_full((*inside.shape[:2], frame_y, frame_x), -torch.inf)
            whole[..., y0 : y0 + inside.shape[-2], x0 : x0 + inside.shape[-1]] = inside
            return whole
        # Interpolation must not mix with -inf, so the frame is filled with a large negative logit instead.
        whole = inside.new_full((*inside.shape[:2], frame_y, frame_x), -30.0)
        whole[..., y0 : y0 + inside.shape[-2], x0 : x0 + inside.shape[-1]] = inside
        return resize(whole, (whole.shape[1], self.shape[1], self.shape[2]))


def prepare(
    volume: Volume,
    modalities: tuple[str, ...],
    spacing: Spacing = (None, None, None),
    divisor: int = 16,
    *,
    crop: bool = True,
    margin_vox: int = HEAD_MARGIN_VOX,
) -> Prepared:
    """Bring a case onto the working grid, normalise it over the head and crop it to the head.

    Parameters
    ----------
    volume
        The case.
    modalities
        The network's channels; those the case lacks become zero.
    spacing
        The working grid in mm along Z, Y, X; None leaves an axis as it is.
    divisor
        The crop's in-plane sides become multiples of this, and so does its corner, so that the network's pooling
        windows fall where they would in the whole frame.
    crop
        False keeps the whole frame, padded to the divisor: slower, and the same result but for rounding.
    margin_vox
        Voxels of the working grid kept around the head.

    Raises
    ------
    DataError
        If the case has none of the modalities, or no head is found in it.
    """
    present = np.array([name in volume.modalities for name in modalities])
    if not present.any():
        raise DataError(
            f"'{volume.name}' has {', '.join(volume.modalities)}, but the model needs at least one of "
            f"{', '.join(modalities)}. Name the images by their MRI sequence."
        )
    frame = working_shape(volume.shape, volume.spacing, spacing)
    known = [volume.modalities.index(name) for name in modalities if name in volume.modalities]
    data = [resize(torch.from_numpy(volume.data[i : i + 1]), frame)[0].numpy() for i in known]  # one at a time: memory
    foregrounds = [foreground(channel) for channel in data]
    head = fill_head(np.logical_or.reduce(foregrounds))
    if not head.any():
        raise DataError(f"No head was found in '{volume.name}': it seems to hold only background. Check the images.")
    box = head_box(head, divisor, margin_vox) if crop else frame_box(frame, divisor)
    head = _cut(head, box)
    prepared = np.zeros((len(modalities), *head.shape), np.float32)
    for index, channel, inside in zip(np.flatnonzero(present), data, foregrounds, strict=True):
        low, high = np.percentile(channel[inside], (0.5, 99.5))
        values = np.clip(channel[inside], low, high)
        scaled = (_cut(channel, box) - values.mean()) / max(float(values.std()), 1e-6)
        prepared[index] = np.where(head, np.clip(scaled, -CLIP_Z, CLIP_Z), 0)
    return Prepared(prepared, head, present, box, frame, volume.shape)


def prepare_for(card: ModelCard, volume: Volume, divisor: int, *, crop: bool = True) -> Prepared:
    """Prepare a case as a model's card says."""
    return prepare(volume, card.modalities, card.spacing, divisor, crop=crop)


def working_shape(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], wanted: Spacing
) -> tuple[int, int, int]:
    """Return how many voxels Z, Y, X the working grid has: the same extent, at about the wanted spacing."""
    z, y, x = (
        n if target is None else max(1, round(n * own / target))
        for n, own, target in zip(shape, spacing, wanted, strict=True)
    )
    return z, y, x


def resize(array_CZYX: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """Resample to another number of voxels over the same extent, linearly and without aliasing."""
    if array_CZYX.shape[2:] != shape[1:]:
        array_CZYX = functional.interpolate(array_CZYX, shape[1:], mode="bilinear", antialias=True, align_corners=False)
    if array_CZYX.shape[1] != shape[0]:
        channels, z = array_CZYX.shape[:2]
        columns = array_CZYX.reshape(channels, 1, z, -1)
        columns = functional.interpolate(
            columns, (shape[0], columns.shape[-1]), mode="bilinear", antialias=True, align_corners=False
        )
        array_CZYX = columns.reshape(channels, *shape)
    return array_CZYX


def fill_head(tissue_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the large connected parts of the tissue and fill their holes slice by slice."""
    parts, count = ndimage.label(tissue_ZYX)
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        tissue_ZYX = (sizes >= 0.1 * sizes.max())[parts]
    return np.stack([ndimage.binary_fill_holes(plane) if plane.any() else plane for plane in tissue_ZYX])


def head_box(head_ZYX: NDArray[np.bool_], divisor: int, margin_vox: int) -> Box:
    """Return the head's bounding box: slices that hold head, and in-plane a margin and multiples of the divisor."""
    bounds = [slice(0, 0)] * 3
    for axis in range(3):
        hit = np.flatnonzero(head_ZYX.any(axis=tuple(a for a in range(3) if a != axis)))
        if axis == 0:
            bounds[axis] = slice(int(hit[0]), int(hit[-1]) + 1)
        else:
            start = max(0, int(hit[0]) - margin_vox) // divisor * divisor
            stop = min(head_ZYX.shape[axis], int(hit[-1]) + 1 + margin_vox)
            bounds[axis] = slice(start, start + -(-(stop - start) // divisor) * divisor)
    return bounds[0], bounds[1], bounds[2]


def frame_box(frame: tuple[int, int, int], divisor: int) -> Box:
    """Return the box of the whole frame, its in-plane sides padded to the divisor."""
    z, y, x = frame
    return slice(0, z), slice(0, -(-y // divisor) * divisor), slice(0, -(-x // divisor) * divisor)


def _cut(array: NDArray[Any], box: Box) -> NDArray[Any]:
    part = array[(..., *box)]
    missing = [s.stop - s.start - n for s, n in zip(box, part.shape[-3:], strict=True)]
    if any(missing):
        part = np.pad(part, [(0, 0)] * (array.ndim - 3) + [(0, m) for m in missing])
    return part
