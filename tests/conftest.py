"""What all tests share. Nothing here imports napari or Qt: the engine's tests run without a display."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, REGION_LABELS, region_from_labels
from napari_braintumor.engine.grid import SourceGrid, default_grid, grid_from_affine
from napari_braintumor.engine.volumes import Segmentation, Volume

ROOT = Path(__file__).parents[1]

pytest_plugins = ("toy_cases", "fake_card")
# Tools and most pages are not in the source distribution.
collect_ignore = [] if (ROOT / "tools").is_dir() else ["test_readme.py", "test_tools.py"]


@pytest.fixture
def real_data() -> Path:
    """The folder of real scans; see the marker of the same name."""
    folder = Path(os.environ.get("BRAINTUMOR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"No real scans at '{folder}'; set BRAINTUMOR_DATA to their folder.")
    return folder


@pytest.fixture(autouse=True)
def models_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of the user's own models, cases, runs and choices, so that no test touches those."""
    folder = tmp_path / "models"
    monkeypatch.setenv("BRAINTUMOR_MODELS", str(folder))
    monkeypatch.setenv("BRAINTUMOR_CASES", str(tmp_path / "corrected"))
    monkeypatch.setenv("BRAINTUMOR_RUNS", str(tmp_path / "users-runs"))
    monkeypatch.setenv("BRAINTUMOR_CHOICES", str(tmp_path / "users-choices"))
    return folder


@pytest.fixture(autouse=True)
def converted_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for converted networks in place of the user's own; all tests share it."""
    folder = tmp_path_factory.getbasetemp() / "converted"
    monkeypatch.setenv("BRAINTUMOR_CACHE", str(folder))
    return folder


@pytest.fixture
def converted_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Conversions in this process and not in one of their own, which takes seconds to start."""
    from napari_braintumor.engine.segmenting import conversion

    def convert(path: Path, sha256: str) -> None:
        with suppress(OSError, RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing
            conversion.convert(path, sha256)

    monkeypatch.setattr(conversion, "_convert_apart", convert)


def _make_volume(
    modalities: tuple[str, ...] = MODALITIES, source: SourceGrid | None = None, name: str = "patient7"
) -> Volume:
    """A case of noise with a bright corner, so that no flip or swap of axes goes unseen."""
    source = source or default_grid((6, 20, 16), (3.0, 1.5, 1.0))
    shape = tuple(source.shape[axis] for axis in source.axes)
    data = np.random.default_rng(0).normal(100, 10, (len(modalities), *shape)).astype(np.float32)
    data[:, :2, :5, :4] = 300
    return Volume(data, modalities, source, name)


def _make_segmentation(volume: Volume) -> Segmentation:
    """A result with a tumor in the corner that `_make_volume` makes bright."""
    labels = np.zeros(volume.shape, np.uint8)
    labels[:2, :5, :4] = 2
    labels[:2, :3, :2] = 1
    labels[0, 0, :2] = 3
    voxel_ml = float(np.prod(volume.spacing)) / 1000
    return Segmentation(
        labels=labels,
        label_names={region.label: region.label_name for region in GLIOMA_REGIONS},
        label_colors={region.label: region.color for region in GLIOMA_REGIONS},
        regions={region.name: REGION_LABELS[region.name] for region in GLIOMA_REGIONS},
        volumes_ml={r.name: float(region_from_labels(labels, r.name).sum()) * voxel_ml for r in GLIOMA_REGIONS},
        source=volume.source,
        name=volume.name,
        provenance={"model": "fake", "device": "cpu", "runtime": "torch", "seconds": 1.5},
    )


@pytest.fixture
def synthetic_volume() -> Callable[..., Volume]:
    """Make a synthetic case: of these modalities, on this grid, by this name."""
    return _make_volume


@pytest.fixture
def synthetic_segmentation() -> Callable[[Volume], Segmentation]:
    """Make the result of a volume."""
    return _make_segmentation


@pytest.fixture
def volume() -> Volume:
    """A synthetic case with four modalities, anisotropic, on a grid of its own."""
    return _make_volume()


@pytest.fixture
def oblique_grid() -> SourceGrid:
    """The grid of a sagittal scan, tilted by ten degrees, whose axes are swapped and flipped against ours."""
    angle = np.deg2rad(10)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ np.array([[0, 0, 3.0], [1.0, 0, 0], [0, -1.5, 0]])
    affine[:3, 3] = (-20, 14, 33)
    return grid_from_affine((16, 20, 6), affine, format="nifti")


@pytest.fixture
def segmentation(volume: Volume) -> Segmentation:
    """A result made from `volume`."""
    return _make_segmentation(volume)


@pytest.fixture
def plugins() -> None:
    """Let napari know the plugins that are installed, this one among them."""
    from npe2 import PluginManager

    PluginManager.instance().discover()
