"""Pack everything for a bare GPU machine that has no network and is available for a quarter of an hour only.

Into one folder go the prepared cases of the plans (8-bit arrays on the working grid, never those of held-out patients
unless asked for, and then apart), the plans, and the wheels that such a machine lacks. With it, `tools/gpu/run` does
everything there. Usage:

    .venv/bin/python tools/gpu/pack DATA [--python 3.12] [--held-out]
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import prepare_brisc
from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.models.registry import find_architecture
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.prepared import TrainingCase, take_slices, write_archive
from napari_braintumor.engine.training.splits import check_names, know_patients
from napari_braintumor.engine.training.training_cases import load_training_case

ROOT = Path(__file__).parents[2]
PACK = ROOT / "gpu_pack"
PLANS = ("glioma_u2net_long", "glioma_u2net_mixed_long", "glioma_res_unet_long", "glioma_unet_long")
MAX_MB = 40 * 2**20 / 1e6
MAX_SLICES = 100
"""Of a case with more, every second slice is packed: slices 1 mm apart hardly differ."""

MISSING = (
    *("annotated-types", "monai", "nibabel", "platformdirs", "pooch"),
    *("pydantic", "pydantic_core", "typing-inspection", "typing_extensions"),
)
"""What a machine with PyTorch, NumPy, SciPy, Matplotlib, Typer, tifffile, psutil, PyYAML and pytest lacks."""

PLATFORMS = (
    *("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64"),
    *("manylinux2014_x86_64", "manylinux1_x86_64"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that the plans' cases start from")
    parser.add_argument("--plans", nargs="*", default=PLANS, metavar="PLAN", help="names in tools/plans")
    parser.add_argument("--python", default="3.12", help="version of Python there")
    parser.add_argument("--held-out", action="store_true", help="held-out patients too, in an archive of their own")
    parser.add_argument("--output", type=Path, default=PACK)
    parser.add_argument("--wheels-only", action="store_true", help="leave cases and plans as they were packed before")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.wheels_only:
        plans = [read_plan(ROOT / "tools" / "plans" / f"{name}.json") for name in options.plans]
        pack_cases(plans, options.data, options.output / "cases", options.held_out)
        pack_plans(options.plans, options.output)
    pack_wheels(options.output / "wheels", options.python)
    report(options.output)


def pack_cases(plans: list[TrainPlan], data: Path, folder: Path, held_out_too: bool) -> None:
    """Prepare the cases of plans that share them, one archive for each side of the split."""
    plan = max(plans, key=lambda each: find_architecture(each.architecture).divisor)
    shared = ("cases", "modalities", "regions", "spacing", "held_out", "validation", "patients")
    if any(getattr(other, name) != getattr(plan, name) for other in plans for name in shared):
        raise SystemExit("The plans have other cases, patients, modalities, regions or spacings: pack them one by one.")
    if not isinstance(plan.validation, tuple):
        raise SystemExit("The plans draw their validation patients. Name them, so that a pack knows them.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with TemporaryDirectory() as made:
        paths = [_folder_of(data, case, Path(made)) for case in plan.cases]
        cases = [case for path in paths for case in find_cases(path)]
        who = know_patients(cases, plan)
        for note in check_names(plan, who):
            print(note)
        sides = {"held_out": who.find(plan.held_out), "validation": who.find(plan.validation)}

        def side_of(name: str) -> str:
            return next((side for side, patients in sides.items() if who.patient_of(name) in patients), "training")

        def prepare(side: str) -> Iterator[TrainingCase]:
            for case in cases:
                if side_of(case.name) != side:
                    continue
                try:
                    prepared = load_training_case(case, plan)
                except DataError as error:
                    print(f"{case.name} is left out: {error}")
                    continue
                yield take_slices(prepared, 2) if len(prepared.slices) > MAX_SLICES else prepared

        for side in ("training", "validation", *(["held_out"] if held_out_too else [])):
            path = folder / f"{side}.cases.zip"
            write_archive(path, plan, prepare(side))
            print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


def _folder_of(data: Path, case: Path, made: Path) -> Path:
    """Return the folder of a plan's cases; BRISC's are made from its pictures if they do not exist yet."""
    path = data / case
    if case.name == "brisc_prepared" and not path.exists():
        path = made / case.name
        prepare_brisc.main(data / "brisc", path)
    return path


def pack_plans(names: list[str], output: Path) -> None:
    """Write the plans so that they learn from the packed cases."""
    folder = output / "plans"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for number, name in enumerate(names):
        plan = json.loads((ROOT / "tools" / "plans" / f"{name}.json").read_text(encoding="utf-8"))
        if plan.get("start_from"):
            plan["start_from"] = plan["name"].removesuffix("-mixed")  # as it ships, which travels with the repository
        plan["cases"] = ["training.cases.zip", "validation.cases.zip"]
        # Those held out are not packed, and without them a name much like theirs would be taken for a slip.
        plan["patients"] = {patient: patient for patient in plan["held_out"]} | plan.get("patients", {})
        (folder / f"{number}_{name}.json").write_text(json.dumps(plan, indent=1), encoding="utf-8")


def pack_wheels(folder: Path, python: str) -> None:
    """Download the wheels that are missing there, in the versions that the tests passed with."""
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M))
    wanted = [f"{name}=={pinned[name]}" for name in MISSING]
    if python == "3.11":
        wanted.append(f"importlib_resources=={pinned['importlib_resources']}")
    shutil.rmtree(folder, ignore_errors=True)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    kind = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *kind, "--dest", str(folder), *wanted]
    subprocess.run(command, check=True)


def report(output: Path) -> None:
    """Print what a pack holds, and fail if it is too large."""
    total = 0.0
    for part in sorted(output.iterdir()):
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file()) / 1e6
        print(f"{part.name:10} {size:6.1f} MB")
        total += size
    print(f"{'together':10} {total:6.1f} MB of at most {MAX_MB:.1f}")
    if total > MAX_MB:
        raise SystemExit("The pack is too large.")
