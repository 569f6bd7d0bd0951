"""Part f: whether the bundled models hold in int8, quantized after training with NNCF.

NNCF comes with a library that reports its use to a web service, so it is not a dependency, not even for development:
``pip install nncf`` to run this part. What int8 would gain in time stands beside what it changes: the Dice of the
patients that the weights were chosen by. It would be offered where no region's mean changes by more than `MAX_CHANGE`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from measuring import THREADS, Worker, bundled_models, data_folder, interleave, judge, make_table
from napari_braintumor.engine import evaluate
from napari_braintumor.engine.events import CaseEvaluated
from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import file_sha256
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.models.store import ModelStore
from napari_braintumor.engine.preparing.prepare import prepare_for
from napari_braintumor.engine.segmenting import network
from napari_braintumor.engine.segmenting.conversion import load_converted
from napari_braintumor.engine.segmenting.runtime import OpenVinoRunner
from napari_braintumor.engine.settings import EvaluateConfig, SegmentConfig
from slice_rounds import make_batch, time_slice

SPLIT = Path(__file__).parents[1] / "tools" / "split.json"
DATA_SETS = ("brats", "lgg", "lgg_half", "btp")
CALIBRATION_CASES = 24
CALIBRATION_SLICES = 10
"""Of each case, evenly spread over the head."""

ROUNDS = 9
MAX_CHANGE = 0.005


class Int8Rounds:
    """Quantize a model, time it, and measure it on the validation patients; the job of a child.

    Parameters
    ----------
    model
        Name of a bundled model.
    """

    def __init__(self, model: str) -> None:
        torch.set_num_threads(THREADS)
        self.model = ModelStore().find(model)

    def __call__(self, quick: bool) -> dict[str, Any]:
        """Return a row of the result.

        Parameters
        ----------
        quick
            One validation case, few slices.
        """
        split = json.loads(SPLIT.read_text(encoding="utf-8"))
        cases = [case for name in DATA_SETS for case in find_cases(data_folder() / name) if case.reference]
        others = [case for case in cases if case.patient not in {*split["validation"], *split["held_out"]}]
        validation = [case for case in cases if case.patient in split["validation"]][: 1 if quick else None]
        learned_from = others[:: max(1, len(others) // (2 if quick else CALIBRATION_CASES))]
        path = self.model.path
        sha256 = file_sha256(path)
        quantized = quantize(load_converted(path, sha256), list(draw_slices(self.model.card, learned_from)))

        batch_NMHW = make_batch(self.model.card)
        shape = (1, *batch_NMHW.shape[1:])
        runners = {
            "float32": OpenVinoRunner(load_converted(path, sha256), shape),
            "int8": OpenVinoRunner(quantized.clone(), shape),
        }
        tasks = {name: time_slice(runner, batch_NMHW) for name, runner in runners.items()}
        interleave(tasks, 1)
        seconds = interleave(tasks, ROUNDS)
        return {
            "calibration_cases": len(learned_from),
            "validation_cases": len(validation),
            "seconds": {name: round(median(values), 5) for name, values in seconds.items()},
            "dice": {
                "float32": measure_dice(self.model.name, validation, load_converted(path, sha256)),
                "int8": measure_dice(self.model.name, validation, quantized),
            },
        }


def draw_slices(card: ModelCard, cases: list[CaseFiles]) -> Iterator[np.ndarray]:
    """Yield slices of some cases as a network sees them, ``(1, M, y, x)``.

    Parameters
    ----------
    card
        The network's.
    cases
        Where from.

    Yields
    ------
    ndarray
        A slice, ``(1, M, y, x)``.
    """
    divisor = find_architecture(card.architecture).divisor
    for case in cases:
        prepared = prepare_for(card, read_case(case), divisor, crop=False)
        slices = np.flatnonzero(prepared.foreground.any((1, 2)))
        for index in slices[:: max(1, len(slices) // CALIBRATION_SLICES)]:
            yield np.ascontiguousarray(prepared.data[None, :, index])


def quantize(model: Any, slices: list[np.ndarray]) -> Any:
    """Return a model of OpenVINO with weights and activations in int8 where NNCF takes that.

    Parameters
    ----------
    model
        In float32.
    slices
        To measure the range of activations on.
    """
    import nncf

    return nncf.quantize(
        model, nncf.Dataset(slices), preset=nncf.QuantizationPreset.MIXED, subset_size=len(slices),
        fast_bias_correction=True,
    )  # fmt: skip


def measure_dice(name: str, cases: list[CaseFiles], model: Any) -> dict[str, float]:
    """Return the mean Dice of each region that the cases define.

    Parameters
    ----------
    name
        Of the model.
    cases
        With references.
    model
        Of OpenVINO, which takes the place of the model's own.
    """

    def start(path: Path, sha256: str, runtime: str, device: torch.device, shape: tuple[int, int, int], *_: Any) -> Any:
        return OpenVinoRunner(model.clone(), (1, *shape))

    dice: dict[str, list[float]] = {}
    with patch.object(network, "start_runner", start):
        segmentation = SegmentConfig(model=name, device="cpu", runtime="openvino")
        for event in evaluate(cases, EvaluateConfig(segmentation=segmentation)):
            if isinstance(event, CaseEvaluated):
                for region, value in event.dice.items():
                    dice.setdefault(region, []).append(value)
    return {region: round(mean(values), 4) for region, values in dice.items()}


def measure(quick: bool) -> dict[str, Any]:
    """Quantize each bundled model, or with quick the default one.

    Parameters
    ----------
    quick
        Little of everything.
    """
    rows = {}
    for model in bundled_models(quick):
        with Worker("int8:Int8Rounds", model=model) as worker:
            rows[model] = worker(quick=quick).value
    return {"rounds": ROUNDS, "rows": rows}


def describe(result: dict[str, Any]) -> str:
    """Return the section of the page.

    Parameters
    ----------
    result
        Of `measure`.
    """
    rows = result["rows"]
    regions = list(dict.fromkeys(region for row in rows.values() for region in row["dice"]["float32"]))
    some = next(iter(rows.values()))
    table = make_table(
        [
            "model",
            "ms a slice, float32 / int8",
            "times float32",
            *(f"Dice of {name}, float32 / int8" for name in regions),
        ],
        [
            [
                name,
                " / ".join(f"{1000 * row['seconds'][kind]:.1f}" for kind in ("float32", "int8")),
                f"{row['seconds']['float32'] / row['seconds']['int8']:.2f}",
                *(" / ".join(f"{row['dice'][kind][region]:.4f}" for kind in ("float32", "int8")) for region in regions),
            ]
            for name, row in rows.items()
        ],
    )
    changes = {
        name: max(abs(row["dice"]["int8"][region] - value) for region, value in row["dice"]["float32"].items())
        for name, row in rows.items()
    }
    met = {f"{name}, {change:.4f}": change <= MAX_CHANGE for name, change in changes.items()}
    return "\n\n".join(
        [
            "## int8",
            table,
            f"Post-training quantization with NNCF (mixed preset, fast bias correction) on about {CALIBRATION_SLICES} "
            f"slices of each of {some['calibration_cases']} training cases; Dice is the mean over those of the "
            f"{some['validation_cases']} validation cases that define the region. Medians of {result['rounds']} rounds "
            "in turn.",
            judge(f"mean Dice of each region within {MAX_CHANGE} of float32", met),
        ]
    )
