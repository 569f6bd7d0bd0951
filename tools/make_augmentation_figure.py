"""Draw what every augmentation does to a slice of the sample case and to its mask: docs/augmentation.png.

The mask's outline is drawn over both pictures: it must move with the image, and stay one region with a sharp edge.

    python tools/make_augmentation_figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from monai.transforms import (
    RandAdjustContrastd,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case, read_reference
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.preparing.prepare import prepare
from napari_braintumor.engine.training.augmentation import KEYS, ROTATION, ZOOM, RandMovement, vary

OUT = Path(__file__).parents[1] / "docs" / "augmentation.png"
OUTLINE = "#f2c14e"


def main() -> None:
    case = find_cases(sample_folder())[0]
    volume, reference = read_case(case), read_reference(case)
    assert reference is not None
    prepared = prepare(volume, ("FLAIR",), margin_vox=8)
    mask = prepared.crop(reference.regions["whole tumor"])
    z = int(mask.sum((1, 2)).argmax())
    item = {
        "image": torch.from_numpy(prepared.data[:, z]),
        "masks": torch.from_numpy(np.stack([mask[z], prepared.foreground[z]]).astype(np.float32)),
    }
    still = {"rotation": 0.0, "zoom": 0.0, "shift_px": 0.0}
    steps: dict[str, Any] = {
        "mirror": RandFlipd(KEYS, prob=1, spatial_axis=1),
        "rotation": RandMovement(1, **still | {"rotation": ROTATION}),
        "zoom": RandMovement(1, **still | {"zoom": ZOOM}),
        "elastic, 10 px": RandMovement(elastic_px=10, deformed=1, **still),
        "scale": RandScaleIntensityd("image", factors=(0.2, 0.2), prob=1),
        "shift": RandShiftIntensityd("image", offsets=(0.3, 0.3), prob=1),
        "gamma": RandAdjustContrastd("image", gamma=(1.5, 1.5), prob=1, retain_stats=True),
        "bias field": RandBiasFieldd("image", degree=3, coeff_range=(0.1, 0.1), prob=1),
        "blur": RandGaussianSmoothd("image", sigma_x=(1, 1), sigma_y=(1, 1), prob=1),
        "low resolution": RandSimulateLowResolutiond(
            "image", prob=1, zoom_range=(0.5, 0.5), downsample_mode="area", upsample_mode="bilinear"
        ),
        "noise": RandGaussianNoised("image", std=0.15, prob=1, sample_std=False),
    }
    columns = 4
    rows = -(-(len(steps) + 1) // columns)
    figure = Figure(figsize=(columns * 2.1, rows * 2.5), dpi=80, layout="constrained", facecolor="white")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, (name, step) in zip(panels, [("before", None), *steps.items()], strict=False):
        # The same start for all, so that each picture shows one transform alone.
        after = item if step is None else vary([step], {k: v.clone() for k, v in item.items()}, 3)
        binary = set(after["masks"].unique().tolist()) <= {0.0, 1.0}
        assert binary, f"{name} blended the mask"
        image = (after["image"][0] * (after["masks"][1] > 0.5)).numpy()
        panel.imshow(np.where(after["masks"][1] > 0.5, image, -3), cmap="gray", vmin=-3, vmax=3.5)
        panel.contour(after["masks"][0], [0.5], colors=OUTLINE, linewidths=1)
        panel.set_title(name, fontsize=9)
    canvas.print_png(str(OUT))
    print(f"{OUT} ({OUT.stat().st_size / 1024:.0f} KB)")


if __name__ == "__main__":
    main()
