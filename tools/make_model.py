"""Train a model from its plans: all its trainings one after the other, then its record.

Existing runs are resumed, so the same command continues after an interruption. Runs go to `runs` in the working
folder; `publish_model.py` then puts the model into the package.

Usage: python tools/make_model.py NAME DATA [--no-tumor FILE ...]
"""

import argparse
import subprocess
import sys
from pathlib import Path

from napari_braintumor.engine.models.store import bundled_folder
from napari_braintumor.engine.training.plan_files import read_plan

TOOLS = Path(__file__).parent
STAGES = {
    "glioma-unet": ("glioma_unet", "glioma_unet_refined", "glioma_unet_last", "glioma_unet_long"),
    "glioma-res-unet": ("glioma_res_unet", "glioma_res_unet_last", "glioma_res_unet_more"),
    "glioma-u2net": ("glioma_u2net", "glioma_u2net_last", "glioma_u2net_more", "glioma_u2net_core"),
    "glioma-fcn8s": ("fcn8s", "fcn8s_last"),
}
TEACHERS = {
    "glioma_u2net_core": Path("runs", "more", "glioma-u2net", "model.safetensors"),
    "glioma_res_unet_more": bundled_folder() / "glioma-u2net.safetensors",
}
"""Plans that learn from LGG cases with a core marked, and the model that helps to mark it."""

TAUGHT = "lgg_core.cases.zip"
"""The archive of those cases."""

CLEANED = ("glioma-u2net", "glioma-res-unet", "glioma-unet")
"""Models of version 2 and later, whose cards also say when little enhancing tumor or little core is not believed."""

MIN_VOLUME_ML = {"glioma-unet": 2.0}
"""Connected components below this are removed, 1 mL where nothing is said; see `models_notes.md`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STAGES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--no-tumor", nargs="*", default=[])
    options = parser.parse_args()
    plans = [TOOLS / "plans" / f"{stage}.json" for stage in STAGES[options.name]]
    for plan in plans:
        if plan.stem in TEACHERS:
            teacher, archive = TEACHERS[plan.stem], options.data / TAUGHT
            run([str(TOOLS / "label_core.py"), str(plans[0]), str(teacher), str(options.data), str(archive)])
        run(["-m", "napari_braintumor", "train", str(plan), "--data", str(options.data)])
    model = read_plan(plans[-1]).output / options.name / "model.safetensors"
    if options.name in CLEANED:
        run([str(TOOLS / "set_cleaning.py"), str(model), options.name])
    record = TOOLS / "records" / f"{options.name}.json"
    settings = ["--min-volume-ml", str(MIN_VOLUME_ML.get(options.name, 1.0)), "--no-tumor", *options.no_tumor]
    run([str(TOOLS / "measure_model.py"), str(model), str(options.data), str(record), *settings])


def run(command: list[str]) -> None:
    subprocess.run([sys.executable, *command], check=True)


if __name__ == "__main__":
    main()
