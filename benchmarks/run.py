"""Run the benchmarks, keep a record of each part, and make the page of all records.

A part is a module with ``measure(quick) -> dict`` of JSON values and ``describe(result) -> str``, its section in
Markdown. Some parts read real scans, see `measuring.data_folder`; int8 needs NNCF, which is not installed with the
rest; gpu needs a CUDA card and runs only when it is asked for.

Usage: python benchmarks/run.py [PART ...] [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import MAX_OTHERS, Others, describe_machine, machine_as_text

HERE = Path(__file__).parent
RECORDS = HERE / "records"
PAGE = HERE / "results.md"
PARTS = ("case_to_file", "inference", "first_click", "training_step", "growth", "int8", "gpu")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if left out")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs; keeps nothing")
    options = parser.parse_args()
    parts = options.parts or [part for part in PARTS if part != "gpu" and (part != "int8" or find_spec("nncf"))]
    for part in parts:
        if part not in PARTS or find_spec(part) is None:
            parser.error(f"there is no part '{part}'; choose from {', '.join(PARTS)}")
    for part in parts:
        module = import_module(part)
        with Others() as others:
            result = module.measure(options.quick)
        print(f"{module.describe(result)}\n", flush=True)
        if others.share > MAX_OTHERS:
            print(f"Other programs took {others.share:.0%} of the cores: measure {part} again.", file=sys.stderr)
        if not options.quick:
            save_record(part, result, others.share, RECORDS)
            PAGE.write_text(compose(RECORDS), encoding="utf-8")


def save_record(part: str, result: dict[str, Any], others_share: float, folder: Path) -> Path:
    """Write what a part measured, with the day and the machine.

    Parameters
    ----------
    part
        Its name.
    result
        Of its ``measure``.
    others_share
        How much of the cores other programs took meanwhile.
    folder
        Made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "part": part,
        "date": date.today().isoformat(),
        "machine": describe_machine(),
        "others_share": round(others_share, 3),
        "result": result,
    }
    path = folder / f"{part}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return path


def compose(records_folder: Path) -> str:
    """Return the page of all records in a folder.

    Parameters
    ----------
    records_folder
        Holds ``<part>.json``; parts without one are left out.
    """
    paths = [records_folder / f"{part}.json" for part in PARTS]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    machines = dict.fromkeys(machine_as_text(record["machine"]) for record in records)
    sections = [
        f"# Time and memory of napari-braintumor, measured on {' and on '.join(machines)}",
        "Made by `python benchmarks/run.py`, which runs the parts anew and keeps what they measured in "
        "`benchmarks/records`. Times are of this machine; ratios of what ran in turn on it carry further.",
    ]
    for record in records:
        machine = record["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        sections.append(import_module(record["part"]).describe(record["result"]))
        sections.append(
            f"*{record['date']}, {machine_as_text(machine)}; Python {machine['python']}, {versions}. "
            f"Other programs took {record['others_share']:.1%} of the cores meanwhile.*"
        )
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    main()
