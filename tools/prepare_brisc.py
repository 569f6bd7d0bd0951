"""Turn BRISC 2025 (JPEG slices, PNG masks) into cases that napari-braintumor can read.

Each slice becomes a folder with a one-slice TIFF stack ``<name>_T1ce.tif`` and ``<name>_mask.tif``. BRISC states no
pixel size: the head in its axial slices nearly fills the image, so its side is taken for 250 mm; the slices are
stored at 2 mm, the working grid of the bundled models.

Usage: python tools/prepare_brisc.py BRISC_FOLDER OUTPUT_FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

FIELD_OF_VIEW_MM = 250.0
SPACING_MM = 2.0


def main(brisc: Path, output: Path) -> None:
    sizes_mm = {"X": SPACING_MM, "Y": SPACING_MM, "Z": 5.0}
    spacing = {f"PhysicalSize{axis}": size for axis, size in sizes_mm.items()}
    spacing |= {f"PhysicalSize{axis}Unit": "mm" for axis in sizes_mm}
    side = round(FIELD_OF_VIEW_MM / SPACING_MM)
    images = sorted((brisc / "images").glob("*.jpg"))
    for path in images:
        image = Image.open(path).convert("L")
        scale = side / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        mask = Image.open(brisc / "masks" / f"{path.stem}.png").convert("L")
        folder = output / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        share = np.asarray(mask.point(lambda v: 255 * (v > 127)).resize(size, Image.Resampling.BOX))
        stacks = {
            "T1ce": np.asarray(image.resize(size, Image.Resampling.BOX)),
            "mask": (share >= 128).astype(np.uint8) * 255,
        }
        for name, array in stacks.items():
            tifffile.imwrite(
                folder / f"{path.stem}_{name}.tif",
                array[None],
                ome=True,
                metadata={"axes": "ZYX", **spacing},
            )
    print(f"{len(images)} slices written to {output}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
