"""How a model of napari-braintumor sees a case, for MONAI: a copy of this file lies in every bundle it exports.

It needs MONAI, nibabel, SciPy and the `head.py` next to it, but nothing of napari-braintumor, and prepares images and
paints labels just as the plugin does.
"""

# M modality, C channel, R region, Z slice, Y row, X column

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray
from scipy import ndimage
from scripts.head import find_background  # type: ignore[import-not-found]
from torch import Tensor
from torch.nn import functional

AIR = -30.0
"""The logit of what lies outside the head."""

LPS = axcodes2ornt("LPS")


class PrepareCase:
    """Brings the images of a case onto the network's grid, normalizes them and crops them to the head.

    Parameters
    ----------
    spacing
        The network's voxels in mm along Z, Y, X; None leaves an axis as it is.
    divisor
        What the in-plane sides of the crop are multiples of.
    normalization
        ``"head z-score"``, ``"nonzero z-score"`` or ``"percentile z-score"``.
    axes
        Orientation and order of the network's axes: ``"LPS zyx"``, ``"LPS xyz"`` or ``"RAS xyz"``.
    context_mm
        The network also sees the slices this many mm above and below; None if it sees one slice alone.
    """

    def __init__(
        self,
        spacing: Sequence[float | None],
        divisor: int,
        normalization: str,
        axes: str,
        context_mm: float | None = None,
    ) -> None:
        self.spacing = spacing
        self.divisor = divisor
        self.normalization = normalization
        self.axes = axes
        self.context_mm = context_mm

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace ``image``, whose first axis are the images, and add what `PaintCase` needs to know."""
        image = data["image"]
        affine = np.asarray(image.affine, np.float64)
        turned = apply_orientation(np.moveaxis(np.asarray(image, np.float32), 0, -1), _to_lps(affine))
        case_MZYX = torch.from_numpy(np.ascontiguousarray(turned.transpose(3, 2, 1, 0)))
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        own = lengths[np.argsort(io_orientation(affine)[:, 0])][::-1]
        shape = case_MZYX.shape[1:]
        frame = [
            n if target is None else max(1, round(n * float(mm) / target))
            for n, mm, target in zip(shape, own, self.spacing, strict=True)
        ]
        working_MZYX = np.stack([_resize(each[None], frame)[0].numpy() for each in case_MZYX])
        every = -(-frame[0] // 192)
        sampled = working_MZYX[:, every // 2 :: every]
        finders = [find_background(sample).find_tissue for sample in sampled]
        head = _fill(np.any([find(each) for find, each in zip(finders, working_MZYX, strict=True)], axis=0))
        if not head.any():
            raise ValueError("No head was found: the images seem to hold only background.")
        box = self._find_box(head)
        inside = _cut(head, box)
        limits = (-np.inf, np.inf)
        if self.normalization == "percentile z-score":
            low, high = np.percentile(sampled, (10, 99))
            limits = float(low), float(high)
        prepared = []
        for whole, sample, find in zip(working_MZYX, sampled, finders, strict=True):
            crop = _cut(whole, box)
            mean, deviation = self._measure(sample, find, limits)
            scores = (np.clip(crop, *limits) - mean) / deviation
            if self.normalization == "head z-score":
                scores = np.where(inside, np.clip(scores, -5, 5), 0)
            elif self.normalization == "nonzero z-score":
                scores = np.where(crop != 0, scores, 0)
            prepared.append(scores)
        prepared_CZYX = torch.from_numpy(np.stack(prepared).astype(np.float32))
        if self.context_mm is not None:
            slice_mm = float(own[0]) * shape[0] / frame[0]
            prepared_CZYX = _add_context(prepared_CZYX, max(1, int(self.context_mm / slice_mm + 0.5)))
        return {
            "image": _to_network(prepared_CZYX, self.axes).contiguous(),
            "head": torch.from_numpy(inside),
            "box": torch.tensor([[side.start, side.stop] for side in box]),
            "frame": torch.tensor(frame),
            "shape": torch.tensor(shape),
            "affine": torch.from_numpy(affine),
            "name": str(np.atleast_1d(image.meta["filename_or_obj"])[0]),
        }

    def _measure(
        self, voxels: NDArray[np.float32], find: Callable[..., Any], limits: tuple[float, float]
    ) -> tuple[np.float32, np.float32]:
        if self.normalization == "percentile z-score":
            values = np.clip(voxels, *limits)
        elif self.normalization == "nonzero z-score":
            values = voxels[voxels != 0]
        else:
            values = voxels[find(voxels)]
            values = np.clip(values, *np.percentile(values, (0.5, 99.5))) if values.size else values
        if not values.size:
            return np.float32(0), np.float32(1)
        mean, deviation = (float(measure(values, dtype=np.float64)) for measure in (np.mean, np.std))
        return np.float32(mean), np.float32(deviation if deviation > 1e-6 * abs(mean) else 1)

    def _find_box(self, head: NDArray[np.bool_]) -> list[slice]:
        if self.normalization == "percentile z-score":
            z, *plane = head.shape
            return [slice(0, z), *(slice(0, -(-side // self.divisor) * self.divisor) for side in plane)]
        hits = [np.flatnonzero(head.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
        box = [slice(int(hits[0][0]), int(hits[0][-1]) + 1)]
        for hit, side in zip(hits[1:], head.shape[1:], strict=True):
            start = max(0, int(hit[0]) - 24) // self.divisor * self.divisor
            stop = min(side, int(hit[-1]) + 25)
            box.append(slice(start, start + -(-(stop - start) // self.divisor) * self.divisor))
        return box


class WindowInferer:
    """Runs a 3-D network window by window; windows are no larger than the case.

    Parameters
    ----------
    window
        Its sides in the network's axes, or None for the whole case at once.
    divisor
        What they are multiples of.
    """

    def __init__(self, window: Sequence[int] | None, divisor: int) -> None:
        self.window = window
        self.divisor = divisor

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the network's output for all of the inputs."""
        sides = [-(-side // self.divisor) * self.divisor for side in inputs.shape[2:]]
        roi = sides if self.window is None else [min(pair) for pair in zip(sides, self.window, strict=True)]
        inferer = SlidingWindowInferer(roi, sw_batch_size=1, overlap=0.5, mode="gaussian")
        return inferer(inputs, network, *args, **kwargs)


class PaintCase:
    """Turns the network's output into labels on the grid of the scan.

    Parameters
    ----------
    channels
        For each region, outermost first, the network's channels that lie in it.
    softmax
        True if channels are classes that exclude each other, False if each is a region.
    labels
        The label of each region.
    threshold
        The probability above which a voxel lies in a region.
    least_ml
        If less is found of a region, all of it counts as the region around it.
    min_volume_ml
        Smaller components of tumor are removed.
    solid_core
        Where the second of three regions is a smaller share of the first than this, what lies deeper in the first
        than a rim counts as the second: the rim as a share of the greatest depth, and in mm. None leaves it all to the
        network.
    axes
        As for `PrepareCase`.
    """

    def __init__(
        self,
        channels: Sequence[Sequence[int]],
        softmax: bool,
        labels: Sequence[int],
        threshold: float,
        least_ml: Sequence[float],
        min_volume_ml: float,
        solid_core: Sequence[float] | None,
        axes: str,
    ) -> None:
        self.channels = channels
        self.softmax = softmax
        self.labels = labels
        self.threshold = threshold
        self.least_ml = least_ml
        self.min_volume_ml = min_volume_ml
        self.solid_core = solid_core
        self.axes = axes

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Replace ``pred`` by labels ``(1, ...)`` in the order of the scan's own axes."""
        pred_CZYX = _from_network(torch.as_tensor(data["pred"]).float().cpu(), self.axes)
        logits_RZYX = _nest(self._to_regions(pred_CZYX))
        logits_RZYX = logits_RZYX.masked_fill(~torch.as_tensor(data["head"]).cpu(), AIR)
        frame, shape = ([int(side) for side in data[key]] for key in ("frame", "shape"))
        within = [
            slice(int(start), min(int(stop), side)) for (start, stop), side in zip(data["box"], frame, strict=True)
        ]
        sizes = [slice(0, side.stop - side.start) for side in within]
        limit = float(np.log(self.threshold / (1 - self.threshold)))
        depth_ZYX = np.zeros(shape, np.uint8)
        for logits_ZYX in logits_RZYX:
            whole = torch.full(frame, AIR)
            whole[tuple(within)] = logits_ZYX[tuple(sizes)]
            depth_ZYX += (_resize(whole[None], shape)[0] > limit).numpy()
        affine = np.asarray(torch.as_tensor(data["affine"]).cpu(), np.float64)
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        sides = lengths[np.argsort(io_orientation(affine)[:, 0])][::-1].tolist()
        self._clean(depth_ZYX, abs(np.linalg.det(affine[:3, :3])), sides)
        painted = np.array([0, *self.labels], np.uint8)[depth_ZYX].transpose(2, 1, 0)
        labels = apply_orientation(painted, ornt_transform(LPS, io_orientation(affine)))
        painted_on_scan = MetaTensor(
            torch.from_numpy(np.ascontiguousarray(labels))[None], affine=torch.from_numpy(affine)
        )
        return {**data, "pred": painted_on_scan}

    def _to_regions(self, pred_CZYX: Tensor) -> Tensor:
        if not self.softmax:
            return pred_CZYX[[channel for (channel,) in self.channels]]
        regions = []
        for inside in self.channels:
            outside = [channel for channel in range(len(pred_CZYX)) if channel not in inside]
            regions.append(pred_CZYX[list(inside)].logsumexp(0) - pred_CZYX[outside].logsumexp(0))
        return torch.stack(regions)

    def _clean(self, depth_ZYX: NDArray[np.uint8], voxel_mm3: float, sides: Sequence[float]) -> None:
        thickness = sides[0]
        voxel_ml = voxel_mm3 / 1000
        least_vox = round(self.min_volume_ml / voxel_ml)
        if least_vox > 1:
            parts, count = ndimage.label(depth_ZYX > 0, np.ones((3, 3, 3)))
            of_slices = np.array([np.bincount(plane.ravel(), minlength=count + 1) for plane in parts])
            # A component that the stack may cut off stays if a section is as large as that of a sphere that is kept.
            section = np.pi * (3000 * self.min_volume_ml / (4 * np.pi)) ** (2 / 3) * thickness / voxel_mm3
            in_part = (of_slices[0] + of_slices[-1] > 0) | (len(parts) <= 5)
            # A component less than 3 mm thick is a sheet, not a tumor, unless the stack may cut it off.
            thick = in_part | ((of_slices > 0).sum(0) >= max(1, int(3.001 // thickness)))
            kept = (of_slices.sum(0) >= least_vox) & thick
            kept |= in_part & (of_slices.max(0) >= max(1, round(section)))
            depth_ZYX[~kept[parts]] = 0
        for index, least_ml in enumerate(self.least_ml):
            if (depth_ZYX > index).sum() * voxel_ml < least_ml:
                np.minimum(depth_ZYX, index, out=depth_ZYX)
                break
        if self.solid_core is not None and (depth_ZYX > 1).sum() < self.solid_core[0] * (depth_ZYX > 0).sum():
            self._fill_core(depth_ZYX, sides)

    def _fill_core(self, depth_ZYX: NDArray[np.uint8], sides: Sequence[float]) -> None:
        """Count the middle of a tumor in which hardly any core was found as core."""
        assert self.solid_core is not None
        _, share, rim_mm = self.solid_core
        every = [max(1, int(1 // side)) for side in sides]
        hits = [np.flatnonzero(depth_ZYX.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
        z0, z1 = max(0, int(hits[0][0]) - every[0]), min(len(depth_ZYX), int(hits[0][-1]) + 1 + every[0])
        inside = depth_ZYX[z0:z1, hits[1][0] : hits[1][-1] + 1, hits[2][0] : hits[2][-1] + 1]
        mask = inside[:: every[0], :: every[1], :: every[2]] > 0
        steps = [number * side for number, side in zip(every, sides, strict=True)]
        depth = ndimage.distance_transform_edt(np.pad(mask, ((0, 0), (1, 1), (1, 1))), sampling=steps)[:, 1:-1, 1:-1]
        parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
        deepest = np.concatenate([[0.0], ndimage.maximum(depth, parts, np.arange(1, count + 1))])
        middle = mask & (depth > np.maximum(rim_mm, share * deepest)[parts])
        for axis, number in enumerate(every):
            middle = middle.repeat(number, axis)
        middle = middle[: inside.shape[0], : inside.shape[1], : inside.shape[2]]
        inside[middle & (inside == 1)] = 2


class SaveLabels:
    """Writes the labels of a case onto the grid of its first image, as ``NAME_seg.nii.gz``.

    MONAI's own ``SaveImaged`` fails where a scan's axes are swapped.

    Parameters
    ----------
    folder
        Created if needed.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def __call__(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write ``pred`` as `PaintCase` leaves it."""
        source = Path(data["name"])
        name = source.name.removesuffix(".gz").removesuffix(".nii")
        self.folder.mkdir(parents=True, exist_ok=True)
        labels = np.asarray(data["pred"][0], np.uint8)
        image = nib.Nifti1Image(labels, np.asarray(data["pred"].affine))
        nib.save(image, self.folder / f"{name}_seg.nii.gz")
        return data


def _to_lps(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    turn: NDArray[np.float64] = ornt_transform(io_orientation(affine), LPS)
    return turn


def _to_network(array: Tensor, axes: str) -> Tensor:
    if axes == "LPS zyx":
        return array
    return (array.flip(-2, -1) if axes == "RAS xyz" else array).transpose(-3, -1)


def _from_network(array: Tensor, axes: str) -> Tensor:
    if axes == "LPS zyx":
        return array
    turned = array.transpose(-3, -1)
    return turned.flip(-2, -1) if axes == "RAS xyz" else turned


def _add_context(array_MZYX: Tensor, step: int) -> Tensor:
    """Add the slices so many steps above and below as channels; beyond the ends they are zero."""
    padded = functional.pad(array_MZYX, (0, 0, 0, 0, step, step))
    return torch.cat([array_MZYX, padded[:, 2 * step :], padded[:, : array_MZYX.shape[1]]])


def _cut(array_ZYX: NDArray[Any], box: Sequence[slice]) -> NDArray[Any]:
    part = array_ZYX[tuple(box)]
    return np.pad(part, [(0, side.stop - side.start - n) for side, n in zip(box, part.shape, strict=True)])


def _resize(array_CZYX: Tensor, shape: Sequence[int]) -> Tensor:
    z, y, x = shape
    if tuple(array_CZYX.shape[2:]) != (y, x):
        array_CZYX = functional.interpolate(array_CZYX, (y, x), mode="bilinear", antialias=True, align_corners=False)
    if array_CZYX.shape[1] != z:
        columns = array_CZYX.reshape(len(array_CZYX), 1, array_CZYX.shape[1], -1)
        columns = functional.interpolate(
            columns, (z, columns.shape[-1]), mode="bilinear", antialias=True, align_corners=False
        )
        array_CZYX = columns.reshape(-1, z, y, x)
    return array_CZYX


def _fill(tissue_ZYX: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the large connected components, and fill their holes slice by slice."""
    parts, _ = ndimage.label(tissue_ZYX)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    large = (sizes >= 0.1 * sizes.max()) & (sizes > 0)
    return np.stack([ndimage.binary_fill_holes(plane) for plane in large[parts]])


def _nest(logits_RZYX: Tensor) -> Tensor:
    """Make no inner region more likely than the one around it: isotonic regression by the min-max formula."""
    regions = len(logits_RZYX)
    sums = torch.cat([torch.zeros_like(logits_RZYX[:1]), logits_RZYX.cumsum(0)])
    fitted = []
    for region in range(regions):
        highest = [
            torch.stack([(sums[last + 1] - sums[first]) / (last + 1 - first) for last in range(region, regions)]).amax(
                0
            )
            for first in range(region + 1)
        ]
        fitted.append(torch.stack(highest).amin(0))
    return torch.stack(fitted)
