"""Part e: seconds and memory for a case of 1, 2, 4 and 8 times the slices, read from disk while it is segmented.

The case is the sample, resampled to 155 slices of 240 x 240 and repeated along Z, as int16 files in a temporary folder:
memory-mapped arrays, and zarr arrays of 32 slices a chunk behind dask, as napari's layers hold them. A last one has
512 x 512 x 600 voxels of the same head. Each size is measured in a fresh process, behind a first segmentation of the
smallest, which loads and compiles the model.

Memory is what the process has of its own. Pages of mapped files are listed beside it: the system drops them whenever it
needs the room.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np

from measuring import Worker, judge, make_table
from napari_braintumor.engine.anatomy import MODALITIES

BASE = (155, 240, 240)
LARGE = (600, 512, 512)
FACTORS = (1, 2, 4, 8)
CHUNK_SLICES = 32

MAX_GROWTH = 0.15
MAX_BEND = 0.10


class Streamed:
    """Segments the first slices of images on disk; the job of a child.

    Parameters
    ----------
    folder
        Of the images.
    kind
        ``"memmap"`` or ``"zarr"``.
    spacing
        In mm along Z, Y, X.
    """

    def __init__(self, folder: str, kind: str, spacing: tuple[float, float, float]) -> None:
        import dask.array
        import openvino  # noqa: F401  belongs to the import baseline
        import zarr

        from napari_braintumor.engine.grid import default_grid
        from napari_braintumor.engine.volumes import StreamedVolume

        self._images: list[Any] = []
        for name in MODALITIES:
            path = Path(folder) / f"{name}.{'npy' if kind == 'memmap' else 'zarr'}"
            if kind == "memmap":
                self._images.append(np.load(path, mmap_mode="r"))
            else:
                array = zarr.open_array(path, mode="r")
                self._images.append(dask.array.from_array(array, chunks=array.chunks))
        self._depth = 1 if kind == "memmap" else CHUNK_SLICES
        self._spacing = spacing
        self._make, self._grid = StreamedVolume, default_grid

    def __call__(self, slices: int) -> dict[str, Any]:
        """Segment the first slices."""
        from napari_braintumor.engine import segment
        from napari_braintumor.engine.settings import SegmentConfig

        images = tuple(image[:slices] for image in self._images)
        grid = self._grid(images[0].shape, self._spacing)
        volume = self._make(images, MODALITIES, grid, "growth", self._depth)
        with _Watch() as watch:
            # All slices, so that time can be compared with their number.
            *_, last = segment(volume, SegmentConfig(device="cpu", search_step_mm=0))
        own, mapped = watch.peak_mb
        return {"own_mb": own, "mapped_mb": mapped, "volumes_ml": dict(last.segmentation.volumes_ml)}


class _Watch:
    """Watches, every few milliseconds, the memory that this process has of its own and that of mapped files."""

    def __enter__(self) -> _Watch:
        self.peak_mb = (0.0, 0.0)
        self._stop = Event()
        self._thread = Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            now = own_and_mapped_mb()
            self.peak_mb = (max(self.peak_mb[0], now[0]), max(self.peak_mb[1], now[1]))


def own_and_mapped_mb() -> tuple[float, float]:
    """Return the memory that this process has of its own and that of mapped files, as Linux reports them."""
    found = dict.fromkeys(("RssAnon", "RssFile", "RssShmem"), 0.0)
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024 / 1e6
    return found["RssAnon"] + found["RssShmem"], found["RssFile"]


def measure(quick: bool) -> dict[str, Any]:
    """Measure all sizes of both kinds; quick takes two sizes of one."""
    factors, rounds = (FACTORS[:2], 1) if quick else (FACTORS, 2)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        write_images(folder, BASE, max(factors))
        sizes = [
            (kind, factor, BASE[0] * factor) for kind in ("memmap", "zarr")[: 1 if quick else 2] for factor in factors
        ]
        runs: dict[tuple[str, int], list[dict[str, Any]]] = {}
        for _ in range(rounds):
            for kind, factor, slices in sizes:
                runs.setdefault((kind, factor), []).append(run_once(folder, kind, BASE[0], slices, (1.0, 1.0, 1.0)))
        for kind, factor, slices in sizes:
            rows.append({"kind": kind, "factor": factor, "shape": [slices, *BASE[1:]], **_middle(runs[kind, factor])})
        if not quick:
            write_images(folder, LARGE, 1)
            spacing = (1.0, BASE[1] / LARGE[1], BASE[2] / LARGE[2])
            row = run_once(folder, "memmap", 16, LARGE[0], spacing)
            rows.append({"kind": "memmap", "factor": None, "shape": list(LARGE), **_middle([row])})
    return {"rows": rows}


def run_once(folder: Path, kind: str, first: int, slices: int, spacing: tuple[float, float, float]) -> dict[str, Any]:
    """Segment in a fresh process: a small part first, then the part that is measured."""
    with Worker("growth:Streamed", folder=str(folder), kind=kind, spacing=spacing) as worker:
        worker(slices=first)
        run = worker(slices=slices)
    return {"seconds": run.seconds, "import_mb": worker.import_mb, **run.value}


def write_images(folder: Path, shape: tuple[int, int, int], repeats: int) -> None:
    """Write the sample, resampled to a shape and repeated along Z, as ``.npy`` and as ``.zarr``."""
    import zarr
    from scipy import ndimage

    from napari_braintumor.engine.files.cases import find_cases
    from napari_braintumor.engine.files.reading import read_case
    from napari_braintumor.engine.files.sample import sample_folder

    volume = read_case(find_cases(sample_folder())[0])
    for name, image in zip(volume.modalities, volume.data, strict=True):
        block = ndimage.zoom(image, np.divide(shape, image.shape), order=1).astype(np.int16)
        whole = np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+", dtype=np.int16, shape=(shape[0] * repeats, *shape[1:])
        )
        for start in range(0, len(whole), shape[0]):
            whole[start : start + shape[0]] = block
        whole.flush()
        if repeats > 1:
            array = zarr.create_array(
                folder / f"{name}.zarr", shape=whole.shape, chunks=(CHUNK_SLICES, *shape[1:]), dtype=whole.dtype
            )
            for start in range(0, len(whole), CHUNK_SLICES):
                array[start : start + CHUNK_SLICES] = whole[start : start + CHUNK_SLICES]


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seconds": round(median(run["seconds"] for run in runs), 2),
        "import_mb": round(median(run["import_mb"] for run in runs)),
        "own_mb": round(median(run["own_mb"] for run in runs)),
        "mapped_mb": round(median(run["mapped_mb"] for run in runs)),
        "whole_tumor_ml": round(runs[0]["volumes_ml"]["whole tumor"], 1),
    }


def describe(result: dict[str, Any]) -> str:
    """Return the section of the page."""
    titles = {"memmap": "memory-mapped", "zarr": "zarr behind dask"}
    base = {row["kind"]: row for row in result["rows"] if row["factor"] == 1}
    lines, flat, straight = [], {}, {}
    for row in result["rows"]:
        first = base[row["kind"]]
        shape = " x ".join(map(str, row["shape"]))
        cells = [titles[row["kind"]], f"{shape} x {len(MODALITIES)}", f"{row['seconds']:.1f}"]
        growth = "", ""
        if row["factor"]:
            per_slice = row["seconds"] / first["seconds"] / row["factor"]
            memory = row["own_mb"] / first["own_mb"]
            growth = f"{per_slice:.2f}", f"{memory:.2f}"
            if row["factor"] > 1:
                flat[f"{titles[row['kind']]} {row['factor']}x"] = memory <= 1 + MAX_GROWTH
                straight[f"{titles[row['kind']]} {row['factor']}x"] = abs(per_slice - 1) <= MAX_BEND
        lines.append([*cells, growth[0], str(row["own_mb"]), growth[1], str(row["mapped_mb"])])
    header = [
        "images", "voxels Z x Y x X x M", "seconds", "a slice, against 1x", "own memory, MB", "against 1x",
        "mapped files and libraries, MB",
    ]  # fmt: skip
    verdicts = [
        judge(f"Memory grows by at most {MAX_GROWTH:.0%} from {BASE[0]} slices on", flat),
        judge(f"Time for a slice changes by at most {MAX_BEND:.0%}", straight),
    ]
    return "\n\n".join(
        [
            "## Growth: volumes larger than memory",
            make_table(header, lines),
            "\n".join(verdicts),
            "The sample case repeated along Z, int16 on disk, default model, all slices looked at, medians of fresh "
            "processes behind a first small segmentation. Own memory is the peak of what the whole process has to "
            "itself, with Python, torch and OpenVINO; pages of mapped files can be dropped at any time.",
        ]
    )
