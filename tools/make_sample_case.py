"""Build the sample case: a synthetic four-modality brain MRI with a glioma and its reference mask.

The anatomy is the ICBM 152 2009a template that nilearn ships, made individual by a random warp; the tumor is grown
from smooth random fields. Everything random comes from one seed, so the same files come out again. It takes about a
minute, needs no network, and needs the packages of the `dev` extra.

    python tools/make_sample_case.py [folder]
"""

from __future__ import annotations

import argparse
import gzip
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import scipy.ndimage as ndi
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from numpy.typing import NDArray
from skimage.graph import MCP_Geometric

Array = NDArray[np.float32]

SEED = 152
SPACING = (1.0, 1.0, 1.5)  # mm along right, anterior, superior
CORNER = (-79.0, -108.0, -66.0)  # RAS mm of the first voxel's center
EXTENT = (160.0, 192.0, 144.0)  # mm
CENTER = np.array([31.0, -6.0, 29.0])  # of the tumor core, RAS mm: right centrum semiovale

# Mean signal of each tissue, before bias field and noise: as z-scores over the brain they are near clinical scans'.
SIGNAL: dict[str, dict[str, float]] = {
    "t1": {"white": 116, "grey": 95, "csf": 46, "edema": 98, "rim": 99, "necrosis": 78, "vein": 100, "dura": 230},
    "t1ce": {"white": 74, "grey": 58, "csf": 25, "edema": 60, "rim": 120, "necrosis": 43, "vein": 300, "dura": 230},
    "t2": {"white": 52, "grey": 68, "csf": 220, "edema": 98, "rim": 94, "necrosis": 150, "vein": 30, "dura": 40},
    "flair": {"white": 84, "grey": 107, "csf": 24, "edema": 142, "rim": 146, "necrosis": 132, "vein": 60, "dura": 150},
}
NOISE = {"t1": 2.8, "t1ce": 2.3, "t2": 2.4, "flair": 2.8}


class Anatomy(NamedTuple):
    """Tissue shares on the case's grid, each 0 to 1; `depth` is mm below the brain's surface, negative outside."""

    white: Array
    grey: Array
    csf: Array
    depth: Array
    template_mm: Array  # (3, X, Y, Z): where each voxel lies in the template, RAS mm


class Tumor(NamedTuple):
    """Shares of the tumor's tissues, each 0 to 1, and the labels drawn from them."""

    edema: Array
    rim: Array
    necrosis: Array
    labels: NDArray[np.uint8]


class Fields:
    """Smooth random fields in space, of unit variance; the same whatever grid they are read on."""

    def __init__(self, seed: int, world_mm: Array) -> None:
        self.rng = np.random.default_rng(seed)
        self.world_mm = world_mm

    def draw(self, scale_mm: float) -> Array:
        """Draw a field whose bumps are about `scale_mm` wide (the sigma of its smoothing)."""
        step = scale_mm / 1.5
        nodes = [int(np.ceil(extent / step)) + 12 for extent in EXTENT]
        noise = ndi.gaussian_filter(self.rng.standard_normal(nodes), 1.5)
        index = [(self.world_mm[axis] - CORNER[axis]) / step + 6 for axis in range(3)]
        field = ndi.map_coordinates(noise / noise.std(), index, order=3, mode="nearest")
        return np.asarray(field, np.float32)


def sample(image: Array, affine: NDArray[np.float64], world_mm: Array, order: int = 3) -> Array:
    """Read an image at places in RAS mm."""
    index = np.tensordot(np.linalg.inv(affine)[:3, :3], world_mm, 1) + np.linalg.inv(affine)[:3, 3][:, None, None, None]
    return np.asarray(ndi.map_coordinates(image, index, order=order, mode="nearest"), np.float32)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -30, 30))), np.float32)


@cache
def load_template() -> tuple[NDArray[np.float64], Array, Array, Array]:
    """Load the template: voxel to RAS mm, white matter 0 to 1, gray matter 0 to 1, mm below the brain's surface."""
    image = load_mni152_template(resolution=1)
    white = np.asarray(load_mni152_wm_template(resolution=1).dataobj, np.float32)
    grey = np.asarray(load_mni152_gm_template(resolution=1).dataobj, np.float32)
    brain = ndi.binary_fill_holes(np.asarray(image.dataobj) > 0)
    depth = ndi.distance_transform_edt(brain) - ndi.distance_transform_edt(~brain)
    return image.affine, white, grey, depth.astype(np.float32)


def make_anatomy(fields: Fields) -> Anatomy:
    """Warp the template into an individual brain that a growing mass has pushed aside."""
    world = fields.world_mm
    affine, template_white, template_grey, template_depth = load_template()

    # From here backwards to the template: first the mass effect, then the individual's shape and size.
    from_center = world - CENTER.astype(np.float32)[:, None, None, None]
    radius = np.linalg.norm(from_center, axis=0) + 1e-3
    push = 6.5 * np.where(radius < 15, radius / 15, np.exp(-np.maximum(radius - 15, 0) / 24))
    warp = np.stack([2.1 * fields.draw(32) + 1.6 * fields.draw(11) + 0.7 * fields.draw(5) for _ in range(3)])
    scale = np.array([1.075, 1.06, 1.07], np.float32)[:, None, None, None]
    depth = sample(template_depth, affine, world * scale + warp, order=1)
    push = push * np.clip(depth / 14, 0, 1)  # the skull does not give way
    there = ((world - push * from_center / radius) * scale + warp).astype(np.float32)

    depth = sample(template_depth, affine, there, order=1)
    white = np.clip(sample(template_white, affine, there), 0, 1)
    grey = np.clip(sample(template_grey, affine, there), 0, 1)
    csf = np.clip(1 - white - grey, 0, 1)

    # An average of many brains is blurred: sharpen it, and open the sulci as far as they are in one person of some
    # age - less near the mass, which presses them shut.
    opening = 1.4 * np.exp(0.35 * fields.draw(7)) * (1 - 0.6 * np.exp(-((radius / 34) ** 2)))
    shares = np.stack([white, grey * np.exp(0.15 * fields.draw(4)), csf * opening]) ** 1.9 + 1e-6
    white, grey, csf = shares / shares.sum(0)
    return Anatomy(white, grey, csf, depth, there)


def grow_tumor(fields: Fields, anatomy: Anatomy, spacing: tuple[float, float, float]) -> Tumor:
    """Grow a lobulated core with necrosis and an irregular rim, and edema that follows the white matter."""
    world = fields.world_mm
    lobes = ((0, 0, 0, 13.0), (8, 11, 4, 9.0), (-2, -13, 6, 8.5), (5, -1, -12, 8.5))
    spheres = [
        size - np.linalg.norm(world - (CENTER + np.array(at)).astype(np.float32)[:, None, None, None], axis=0)
        for *at, size in lobes
    ]
    blended = 3.0 * np.logaddexp.reduce(np.stack(spheres) / 3.0, axis=0)
    core_mm = blended - 0.4 + 2.1 * fields.draw(6) + 0.9 * fields.draw(2.6)
    core_mm = core_mm - 8 * anatomy.csf * (anatomy.depth > 6)  # tumors border on ventricles, they do not fill them
    parts, _ = ndi.label(core_mm > 0)
    main = parts == np.bincount(parts[parts > 0]).argmax()
    inside_mm = ndi.distance_transform_edt(main, sampling=spacing)
    outside_mm = ndi.distance_transform_edt(~main, sampling=spacing)
    core_mm = ndi.gaussian_filter(inside_mm - outside_mm, [0.8 / s for s in spacing]).astype(np.float32)
    core = sigmoid(core_mm / 0.7)

    thickness = np.clip(3.3 + 1.7 * fields.draw(7) + 0.8 * fields.draw(3), 0.4, 8.0)
    hollow = sigmoid((core_mm - thickness) / 0.5)
    septa = np.exp(-((fields.draw(5) / 0.28) ** 2)) * sigmoid(5 * fields.draw(6) - 2)
    necrosis = core * hollow * (1 - 0.9 * septa)
    rim = core - necrosis

    # Edema runs fast along white matter, hardly through cortex, never through fluid.
    cost = 1 / (0.02 + anatomy.white + 0.08 * anatomy.grey) + 60 * anatomy.csf**2 + 1000 * (anatomy.depth < 0)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(core_mm > -60))
    starts = np.argwhere(main[box])
    way_mm = np.full(core_mm.shape, 1e3, np.float32)
    way_mm[box] = MCP_Geometric(cost[box], sampling=spacing).find_costs(starts)[0]
    reach_mm = np.clip(9.0 + 6.0 * fields.draw(12) + 2.0 * fields.draw(4.5), 1.0, None)
    edema = sigmoid((reach_mm - way_mm) / 1.5) * np.clip(anatomy.white + 0.45 * anatomy.grey, 0, 1)
    edema = ndi.gaussian_filter(edema, [0.6 / s for s in spacing]) * (1 - anatomy.csf) ** 2 * (1 - core)

    labels = np.zeros(core.shape, np.uint8)
    labels[(edema > 0.42) & (anatomy.csf < 0.35)] = 2
    parts, _ = ndi.label((labels > 0) | (core > 0.5))
    labels[parts != parts[main][0]] = 0
    labels[core > 0.5] = 1
    labels[(core > 0.5) & (rim > 0.5 * core)] = 3
    return Tumor(edema.astype(np.float32), rim.astype(np.float32), necrosis.astype(np.float32), labels)


def draw_vessels(fields: Fields, anatomy: Anatomy) -> tuple[Array, Array]:
    """Draw what lights up with contrast agent outside the tumor: veins with sinuses and choroid plexus, and dura."""
    x, y, z = anatomy.template_mm
    depth = anatomy.depth
    # Two random surfaces cross in a line: that is a vessel.
    lines = sum(np.exp(-(fields.draw(s) ** 2 + fields.draw(s) ** 2) / (2 * 0.13**2)) for s in (7, 7, 9, 9))
    veins = (
        np.clip(lines, 0, 1) * np.clip(2.2 * anatomy.csf, 0, 1) * np.exp(-(((depth - 3) / 9) ** 2)) * sigmoid(6 * depth)
    )
    midline = np.exp(-((x / 2.2) ** 2))
    sinus = midline * np.exp(-((depth / 1.8) ** 2)) * sigmoid((z - 5 - 0.5 * y) / 4)
    straight = np.exp(-(x**2 + (z - 4 + 0.45 * (y + 55)) ** 2) / (2 * 1.6**2)) * sigmoid(-(y + 38)) * sigmoid(y + 82)
    atrium = np.exp(-(((abs(x) - 22) / 6) ** 2 + ((y + 38) / 8) ** 2 + ((z - 10) / 9) ** 2))
    plexus = atrium * anatomy.csf * sigmoid(4 * fields.draw(3))
    dura = 0.7 * np.exp(-(((depth - 0.3) / 0.9) ** 2)) * sigmoid(4 * fields.draw(9) - 4)
    return np.clip(veins + sinus + 0.8 * straight + 0.6 * plexus, 0, 1).astype(np.float32), dura.astype(np.float32)


def add_noise(signal: Array, sigma: float, rng: np.random.Generator) -> Array:
    """Add Rician noise, slightly correlated between neighbors as after the resampling of a clinical scan."""
    real, imaginary = (ndi.gaussian_filter(rng.standard_normal(signal.shape), 0.55) for _ in range(2))
    noise = sigma / real.std()
    return np.hypot(signal + noise * real, noise * imaginary).astype(np.float32)


def make_case(
    spacing: tuple[float, float, float] = SPACING, seed: int = SEED
) -> tuple[dict[str, NDArray[np.uint8]], NDArray[np.uint8], NDArray[np.float64]]:
    """Build the case.

    Parameters
    ----------
    spacing
        Voxel size in mm along right, anterior, superior. The anatomy and the tumor hardly depend on it.
    seed
        Of everything random.

    Returns
    -------
    images
        uint8 ``(X, Y, Z)`` for t1, t1ce, t2 and flair; exactly 0 outside the brain.
    labels
        uint8 ``(X, Y, Z)``: 1 necrotic / non-enhancing core, 2 edema, 3 enhancing tumor.
    affine
        ``(4, 4)``, voxel to RAS mm in the template's space.
    """
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = CORNER
    axes = [start + step * np.arange(round(e / step)) for start, step, e in zip(CORNER, spacing, EXTENT, strict=True)]
    world = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    fields = Fields(seed, world)
    anatomy = make_anatomy(fields)
    tumor = grow_tumor(fields, anatomy, spacing)
    veins, dura = (share * (tumor.labels == 0) for share in draw_vessels(fields, anatomy))

    edge = anatomy.depth + 0.6 + 0.7 * fields.draw(6)  # skull stripping leaves an uneven margin
    sinus = (veins > 0.35) & (anatomy.depth > -2.5)
    parts, _ = ndi.label((edge > 0) | sinus)
    brain = parts == np.bincount(parts[parts > 0]).argmax()
    margin = np.clip(0.3 + 0.7 * edge / 1.5, 0.3, 1)
    mottle = fields.draw(2.2)
    patches = fields.draw(6)

    images = {}
    for name, signal in SIGNAL.items():
        healthy = signal["white"] * anatomy.white + signal["grey"] * anatomy.grey + signal["csf"] * anatomy.csf
        healthy = healthy * (1 + 0.03 * fields.draw(5))
        image = healthy + veins * (signal["vein"] - healthy) * (1 if name == "t1ce" else 0.6)
        image += dura * (signal["dura"] - image)
        edema = signal["edema"] * (1 + 0.07 * patches) + 0.25 * (healthy - signal["white"])
        image += tumor.edema * (edema - image)
        solid = tumor.rim + tumor.necrosis
        rim = signal["rim"] * (1 + (0.16 if name == "t1ce" else 0.06) * mottle)
        necrosis = signal["necrosis"] * (1 + 0.09 * mottle + 0.07 * patches)
        image = (1 - solid) * image + tumor.rim * rim + tumor.necrosis * necrosis
        bias = np.exp(0.07 * fields.draw(45) + 0.025 * fields.draw(20))
        image = add_noise(image * bias * np.maximum(margin, np.maximum(veins, dura)), NOISE[name], fields.rng)
        images[name] = np.where(brain, np.clip(np.rint(image), 1, 255), 0).astype(np.uint8)
    labels = np.where(brain, tumor.labels, 0).astype(np.uint8)
    return images, labels, affine


def save_case(folder: Path) -> None:
    """Write the case as NIfTI files that hold no date, so that the same case gives the same bytes."""
    images, labels, affine = make_case()
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in {**images, "seg": labels}.items():
        image = nib.Nifti1Image(array, affine)
        image.header.set_xyzt_units("mm")
        image.set_qform(affine, code=4)  # 4: MNI 152 space
        image.set_sform(affine, code=4)
        path = folder / f"sample_{name}.nii.gz"
        path.write_bytes(gzip.compress(image.to_bytes(), mtime=0))
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "src" / "napari_braintumor" / "sample"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    save_case(parser.parse_args().folder)
