"""A case on disk to labels on disk, by a plain MONAI pipeline: the reference that `case_to_file` compares with.

It is built as MONAI's brats bundle is: dictionary transforms, an inferer with one window at a time, eager float32
torch, postprocessing, `SaveImaged`. Some of it is ours, since the same weights give the same labels only on the same
numbers:

- `PrepareByCardd` calls our `prepare_for` with ``crop=False`` in place of ``NormalizeIntensityd`` and ``Resized``: the
  networks work at 2 mm in-plane, on z-scores over the head. The whole frame is kept, as a pipeline of MONAI's own
  would.
- On the way back, our `nest_logits`, the mask of the head and `restore_slices` to the case's grid.

The windows are slices in full: `SliceInferer` along the axial axis, ``sw_batch_size=1`` as in the bundle.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SliceInferer
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    ConcatItemsd,
    DeleteItemsd,
    EnsureChannelFirstd,
    LoadImaged,
    MapTransform,
    Orientationd,
    RemoveSmallObjectsd,
    SaveImaged,
)

from measuring import THREADS
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.prepare import prepare_for
from napari_braintumor.engine.segmenting.regions import BACKGROUND_LOGIT, nest_logits, restore_slices
from napari_braintumor.engine.volumes import Volume

# MONAI's arrays are (C, X, Y, Z); the working grid, and with it the network's output, is (C, Z, Y, X).
TO_ZYX = (0, 3, 2, 1)


class MonaiPipeline:
    """Load a case, run the network slice by slice, save the labels.

    Parameters
    ----------
    model
        Name of a model in the store; its weights are loaded at the first run.
    device
        Where the network runs.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        torch.set_num_threads(THREADS)
        # MONAI calls scikit-image by a parameter that has a new name there.
        warnings.filterwarnings("ignore", "Parameter `min_size` is deprecated", FutureWarning)
        self.model = ModelStore().find(model)
        self.device = device
        self.network: torch.nn.Module | None = None
        self.before: dict[tuple[str, ...], Compose] = {}

    def __call__(self, case: str, output: str) -> str:
        """Do it once.

        Parameters
        ----------
        case
            The case's folder.
        output
            The file for the labels, ``.nii.gz``.

        Returns
        -------
        str
            The runtime that was used.
        """
        card = self.model.card
        if self.network is None:
            self.network = load_network(self.model.path).to(self.device)
        (files,) = find_cases(Path(case))
        images = {image.modality: str(image.paths[0]) for image in files.images}
        if tuple(images) not in self.before:  # made once: `LoadImaged` looks for every reader there is
            self.before[tuple(images)] = before(card, tuple(images))
        with torch.inference_mode():
            data = self.before[tuple(images)](images)
            prepared_MZYX = data["image"]
            inferer = SliceInferer(spatial_dim=0, roi_size=prepared_MZYX.shape[2:], sw_batch_size=1)
            data["pred"] = inferer(prepared_MZYX[None].to(self.device), self.network)[0].cpu()
            behind(card, Path(output))(data)
        return "torch"


def before(card: ModelCard, modalities: tuple[str, ...]) -> Compose:
    """Return the transforms before the network.

    Parameters
    ----------
    card
        The model's.
    modalities
        Those the case has; they are also the keys of its files.
    """
    return Compose(
        [
            LoadImaged(modalities),
            EnsureChannelFirstd(modalities),
            Orientationd(modalities, axcodes="LPS", labels=None),
            ConcatItemsd(modalities, name="image"),
            DeleteItemsd(modalities),
            PrepareByCardd("image", card, modalities),
        ]
    )


def behind(card: ModelCard, output: Path) -> Compose:
    """Return the transforms after the network.

    Parameters
    ----------
    card
        The model's.
    output
        The file for the labels.
    """
    stem = output.name.removesuffix(".nii.gz")
    steps: list[Any] = [
        RestoreToCased("pred"),
        Activationsd("pred", sigmoid=True),
        AsDiscreted("pred", threshold=card.threshold),
        PaintLabelsd("pred", card),
    ]
    if card.min_volume_ml:
        # On the labels and not on the regions: the union of the regions is what is connected.
        steps.append(
            RemoveSmallObjectsd(
                "pred",
                min_size=card.min_volume_ml * 1000,
                connectivity=3,  # all 26 neighbors
                by_measure=True,
                independent_channels=False,
            )
        )
    steps.append(
        SaveImaged(
            "pred",
            output_dir=output.parent,
            output_ext=".nii.gz",
            output_dtype=np.uint8,
            resample=True,
            separate_folder=False,
            print_log=False,
            output_name_formatter=lambda meta, saver: {"subject": stem, "idx": None},
            output_postfix="",
        )
    )
    return Compose(steps)


class PrepareByCardd(MapTransform):
    """Bring an image onto the card's working grid and normalize it as the card says, by our `prepare_for`.

    Parameters
    ----------
    keys
        Of the image, ``(M, X, Y, Z)`` in LPS.
    card
        The model's.
    modalities
        What the channels are.
    """

    def __init__(self, keys: Hashable, card: ModelCard, modalities: tuple[str, ...]) -> None:
        super().__init__(keys)
        self.card = card
        self.modalities = modalities

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the image by ``(M, z, y, x)``, and keep what leads back."""
        result = dict(data)
        for key in self.key_iterator(result):
            image_MXYZ: MetaTensor = result[key]
            array_MZYX = np.ascontiguousarray(image_MXYZ.numpy().transpose(TO_ZYX))
            x, y, z = (float(side) for side in image_MXYZ.pixdim)
            volume = Volume(array_MZYX, self.modalities, default_grid(array_MZYX.shape[1:], (z, y, x)))
            divisor = find_architecture(self.card.architecture).divisor
            result["prepared"] = prepare_for(self.card, volume, divisor, crop=False)
            result["meta"] = image_MXYZ.meta
            result[key] = torch.from_numpy(result["prepared"].data)
        return result


class RestoreToCased(MapTransform):
    """Make logits nest, and bring them from the working grid back to the grid that `PrepareByCardd` was given."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace logits ``(R, z, y, x)`` by logits ``(R, X, Y, Z)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            prepared = result["prepared"]
            logits_ZRYX = nest_logits(result[key].transpose(0, 1))
            outside = torch.from_numpy(~prepared.foreground)[:, None]
            logits_RZYX = restore_slices(prepared, logits_ZRYX.masked_fill(outside, BACKGROUND_LOGIT).transpose(0, 1))
            result[key] = MetaTensor(logits_RZYX.permute(TO_ZYX), meta=result["meta"])
        return result


class PaintLabelsd(MapTransform):
    """Paint regions into labels, outermost first.

    Parameters
    ----------
    keys
        Of the regions.
    card
        The model's.
    """

    def __init__(self, keys: Hashable, card: ModelCard) -> None:
        super().__init__(keys)
        self.card = card

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace masks ``(R, X, Y, Z)`` by labels ``(1, X, Y, Z)``."""
        result = dict(data)
        for key in self.key_iterator(result):
            masks = result[key].bool().numpy()
            labels = np.zeros(masks.shape[1:], np.uint8)
            for mask, region in zip(masks, self.card.regions, strict=True):
                labels[mask] = region.label
            result[key] = MetaTensor(labels[None], meta=result["meta"])
        return result
