"""Part a: a BraTS case on disk to a label file on disk, ours beside a plain MONAI pipeline with the same weights.

The two sides are in `our_pipeline` and `monai_pipeline`; each is a child process of its own, new for each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np

from measuring import THREADS, Worker, bundled_models, data_folder, interleave, judge, make_table, summarize, with_range
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, labels_by_region

CASES = ("BraTS2021_00024", "BraTS2021_00002")
ROUNDS, QUICK_ROUNDS = 5, 2
MIN_RATIO = 4.0
MIN_DICE = 0.999
MAX_MB = 1200


def measure(quick: bool) -> dict[str, Any]:
    """Run both sides in turn on each case with each model.

    Parameters
    ----------
    quick
        One case and the default model only, few rounds.

    Returns
    -------
    dict
        ``rounds`` and a row for each case and model.
    """
    models = bundled_models(quick)
    cases = CASES[:1] if quick else CASES
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = [measure_row(data_folder() / "brats" / case, model, rounds) for model in models for case in cases]
    return {"rounds": rounds, "rows": rows}


def measure_row(case: Path, model: str, rounds: int) -> dict[str, Any]:
    """Run both sides in turn on one case with one model.

    Parameters
    ----------
    case
        Its folder.
    model
        Name of a model in the store.
    rounds
        How often each side is timed, after its first run.
    """
    with (
        TemporaryDirectory() as folder,
        Worker("our_pipeline:OurPipeline", model=model, cache=f"{folder}/1") as ours,
        Worker("our_pipeline:OurPipeline", model=model, cache=f"{folder}/2", search_step_mm=0) as every,
        Worker("monai_pipeline:MonaiPipeline", model=model) as reference,
    ):
        workers = {"ours": ours, "every": every, "reference": reference}
        files = {name: Path(folder) / f"{name}.nii.gz" for name in workers}
        sides = {
            name: lambda worker=worker, name=name: worker(case=str(case), output=str(files[name]))
            for name, worker in workers.items()
        }
        first = interleave(sides, 1)
        runs = interleave(sides, rounds)
        dice = compare_files(files["ours"], files["reference"])
    row: dict[str, Any] = {"case": case.name, "model": model, "runtime": first["ours"][0].value}
    for name, worker in workers.items():
        row[name] = {"import_mb": round(worker.import_mb), **summarize(first[name][0], runs[name])}
    return row | {"ratio": round(row["reference"]["seconds"] / row["ours"]["seconds"], 2), "dice": dice}


def compare_files(path: Path, other: Path) -> dict[str, float]:
    """Return the Dice of each region between two label files on one grid, 1 where it is in neither.

    Parameters
    ----------
    path, other
        NIfTI files.
    """
    image, other_image = nib.load(path), nib.load(other)
    assert image.shape == other_image.shape
    assert np.allclose(image.affine, other_image.affine)
    labels, other_labels = np.asarray(image.dataobj), np.asarray(other_image.dataobj)
    dice = {}
    for region, numbers in labels_by_region(GLIOMA_REGIONS).items():
        mask, other_mask = np.isin(labels, numbers), np.isin(other_labels, numbers)
        size = int(mask.sum()) + int(other_mask.sum())
        dice[region] = round(2 * int((mask & other_mask).sum()) / size, 6) if size else 1.0
    return dice


def describe(result: Mapping[str, Any]) -> str:
    """Return the section of the page.

    Parameters
    ----------
    result
        Of `measure`.
    """
    rows = result["rows"]
    runtimes = ", ".join(sorted({row["runtime"] for row in rows}))
    times = make_table(
        [
            "model",
            "case",
            "ours, s",
            "every slice, s",
            "reference, s",
            "ratio",
            "CPU s, ours / reference",
            "first run, ours / reference",
        ],
        [
            [
                row["model"],
                row["case"],
                with_range(row["ours"]["all_seconds"]),
                f"{row['every']['seconds']:.2f}",
                with_range(row["reference"]["all_seconds"]),
                f"**{row['ratio']:.1f}**",
                both(row, "cpu_seconds", 1),
                both(row, "first_seconds", 1),
            ]
            for row in rows
        ],
    )
    needs = make_table(
        [
            "model",
            "case",
            "MB above imports, ours / reference",
            "imports, ours / reference",
            *labels_by_region(GLIOMA_REGIONS),
        ],
        [
            [
                row["model"],
                row["case"],
                both(row, "peak_mb", 0),
                both(row, "import_mb", 0),
                *(f"{row['dice'][region]:.5f}" for region in labels_by_region(GLIOMA_REGIONS)),
            ]
            for row in rows
        ],
    )
    names = [f"{row['model']} on {row['case']}" for row in rows]

    def met(is_met: list[bool]) -> dict[str, bool]:
        return dict(zip(names, is_met, strict=True))

    verdict = "\n".join(
        [
            judge(
                f"at least {MIN_RATIO:g} times as fast as the reference",
                met([row["ratio"] >= MIN_RATIO for row in rows]),
            ),
            judge(
                f"Dice between the two files at least {MIN_DICE}",
                met([min(row["dice"].values()) >= MIN_DICE for row in rows]),
            ),
            judge(f"at most {MAX_MB} MB above imports", met([row["ours"]["peak_mb"] <= MAX_MB for row in rows])),
        ]
    )
    sections = [
        "## From a case on disk to labels on disk",
        f"Ours (`find_cases`, `read_case`, `segment` with {runtimes}, `write_labels`) beside a MONAI pipeline with the "
        "same weights: dictionary transforms, `SliceInferer` over whole slices with `sw_batch_size=1`, eager float32 "
        "torch. The reference has the working grid, the normalization and the way back from us, or its labels could "
        "not agree. Ours searches the slices a few mm apart and looks at all only around tumor, so its time depends on "
        "the tumor; *every slice* is ours without that (`search_step_mm=0`).",
        times,
        f"Median (least to most) of {result['rounds']} runs of each, in turn, each side in a child process of its own "
        f"that was kept alive, on {THREADS} threads; the first run loads, converts (nothing is in the cache) and "
        "compiles, and is not among them. CPU seconds are a run's median.",
        needs,
        "Memory is the child's peak over all its runs, the first one too. The last columns are the Dice of each region "
        "between the two files.",
        verdict,
    ]
    return "\n\n".join(sections)


def both(row: Mapping[str, Any], key: str, digits: int) -> str:
    """Return a figure of both sides.

    Parameters
    ----------
    row
        Of the result.
    key
        Of the figure.
    digits
        Behind the point.
    """
    return f"{row['ours'][key]:.{digits}f} / {row['reference'][key]:.{digits}f}"
