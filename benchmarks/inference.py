"""Part b: the networks alone, on each runtime, beside what the cores can do in a matrix product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from measuring import THREADS, Worker, bundled_models, make_table

REFERENCE = "U-Net, width 32, batch norm"
ROUNDS, QUICK_ROUNDS = 9, 3
TITLES = {"openvino": "OpenVINO", "torch": "torch, channels last", "eager": "torch, eager NCHW"}


def measure(quick: bool) -> dict[str, Any]:
    """Time each bundled model and the reference U-Net on each runtime.

    Parameters
    ----------
    quick
        The default model and the U-Net only, few rounds.

    Returns
    -------
    dict
        ``rounds`` and a row for each network.
    """
    models = bundled_models(quick)
    rounds = QUICK_ROUNDS if quick else ROUNDS
    rows = []
    for model in (*models, None):
        with Worker("slice_rounds:SliceRounds", model=model) as worker:
            rows.append({"network": model or REFERENCE, **worker(rounds=rounds).value})
    return {"rounds": rounds, "rows": rows}


def describe(result: Mapping[str, Any]) -> str:
    """Return the section of the page.

    Parameters
    ----------
    result
        Of `measure`.
    """
    known = result["rows"][0]["runtimes"]
    rows = [
        [
            row["network"],
            " x ".join(map(str, row["shape"])),
            f"{row['gflop']:.2f}",
            TITLES[name],
            f"{1000 * row['runtimes'][name]['seconds']:.1f}",
            f"{times_eager(row, name):.2f}",
            f"{rate_of(row, name):.0f}",
            f"{row['matrix_gflops']:.0f}",
            f"{rate_of(row, name) / row['matrix_gflops']:.0%}",
        ]
        for row in result["rows"]
        for name in row["runtimes"]
    ]
    header = ["network", "slice", "GFLOP a slice", "runtime", "ms a slice", "times eager", "GFLOP/s"]
    table = make_table([*header, "matrix product, GFLOP/s", "share"], rows)
    sections = [
        "## The networks alone",
        table,
        f"Medians of {result['rounds']} rounds, all runtimes and a 2048² float32 matrix product in turn in one "
        f"process, on {THREADS} threads; batches of 8 slices, the time divided by 8. Slices are those of a whole BraTS "
        "frame on the model's working grid; in use they are cropped to the head. The U-Net has fresh weights. GFLOP "
        "are those of the convolutions as they are defined; a runtime that needs fewer multiplications for them "
        "(Winograd) may come out above the matrix product.",
        "\n".join(compare(name, result["rows"]) for name in ("openvino", "torch") if name in known),
    ]
    return "\n\n".join(sections)


def compare(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Compare a runtime with eager torch, over all networks.

    Parameters
    ----------
    name
        Of the runtime.
    rows
        Of the result.
    """
    times = [times_eager(row, name) for row in rows]
    shares = [rate_of(row, name) / row["matrix_gflops"] for row in rows]
    return (
        f"- {TITLES[name]}: {min(times):.2f} to {max(times):.2f} times as fast as eager torch, at {min(shares):.0%} to "
        f"{max(shares):.0%} of the matrix product's rate"
    )


def times_eager(row: Mapping[str, Any], name: str) -> float:
    """Return how many times as fast as eager torch a runtime is.

    Parameters
    ----------
    row
        Of the result.
    name
        Of the runtime.
    """
    return float(row["runtimes"]["eager"]["seconds"] / row["runtimes"][name]["seconds"])


def rate_of(row: Mapping[str, Any], name: str) -> float:
    """Return the GFLOP/s of a runtime.

    Parameters
    ----------
    row
        Of the result.
    name
        Of the runtime.
    """
    return float(row["gflop"] / row["runtimes"][name]["seconds"])
