"""Layers for the tests: a case as this plugin opens it, and as other plugins do."""

from __future__ import annotations

from pathlib import Path

import dask.array as da
import numpy as np
import zarr
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer

from napari_braintumor.engine.volumes import Reference, Segmentation, Volume
from napari_braintumor.layers import default_placement, layers_from_case, update_or_add_labels


def open_case(viewer: ViewerModel, volume: Volume, reference: Reference | None = None) -> dict[str, Layer]:
    layers = [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume, reference)]
    return {modality: layers[i] for i, modality in enumerate(volume.modalities)}


def open_result(volume: Volume, segmentation: Segmentation) -> tuple[ViewerModel, Labels]:
    """Open a case in a viewer of its own, with the result of a model."""
    viewer = ViewerModel()
    open_case(viewer, volume)
    return viewer, update_or_add_labels(viewer, segmentation, default_placement(volume.source))


def lazy_layers(volume: Volume, kind: str, folder: Path) -> dict[str, Image]:
    layers = {}
    for modality, data in zip(volume.modalities, volume.data, strict=True):
        if kind == "dask":
            lazy = da.from_array(data, chunks=(2, 20, 16))
        elif kind == "zarr":
            lazy = zarr.create_array(zarr.storage.MemoryStore(), data=data, chunks=(2, 10, 16))
        else:
            np.save(folder / f"{modality}.npy", data)
            lazy = np.load(folder / f"{modality}.npy", mmap_mode="r")
        layers[modality] = Image(lazy, name=modality, scale=(3, 1.5, 1), units="mm")
    return layers


def napari_nifti_layer(volume: Volume, name: str = "scan_flair", order: str = "RAS+") -> Image:
    """A layer as napari-nifti 0.0.20 makes it: axes S, A, R; negative scales; translate at the far corner; no units."""
    sar = volume.data[0][:, ::-1, ::-1]
    spacing = np.array(volume.spacing)
    origin = np.array(volume.source.origin)
    to_sar = np.array([origin[0], -(origin[1] + 19 * spacing[1]), -(origin[2] + 15 * spacing[2])])  # S, A, R mm
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = to_sar[::-1]
    return Image(
        sar,
        name=name,
        scale=-spacing,
        translate=to_sar + (np.array(sar.shape) - 1) * spacing,
        metadata={"affine": affine, "coordinate_system": order, "spacing": spacing[::-1]},
    )
