"""Repeat the original project's two trainings at reduced width, resolution and length, and measure both ways.

Each plan is trained twice: on a split by slice, as the original was, and on a split by patient. Each is measured on its
validation side by the original's measure and by ours. The U-Net's learning rate, 1e-4 in the plan, is ten times as high
here: with it nothing is learned in minutes.

    python tools/repeat_seed.py DATA OUT [--width 8] [--minutes 4]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from napari_braintumor.engine.training.plan_files import read_plan

FASTER = 1e-3
PLANS = Path(__file__).parent / "plans"
COMMAND = [sys.executable, "-W", "ignore", "-m", "napari_braintumor"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=4.0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in ("seed_unet", "seed_res_unet"):
        for split_by in ("slice", "patient"):
            plan = read_plan(PLANS / f"{name}.json")
            reduced = {
                "name": f"{plan.name}-{split_by}",
                "split_by": split_by,
                "options": {**plan.options, "width": options.width},
                "spacing": (None, 2.0, 2.0),
                "patch": (112, 112),
                "learning_rate": max(plan.learning_rate, FASTER),
                "steps_per_epoch": 100,
                "minutes": options.minutes,
                "preview_every": 0,
                "cases": tuple(options.data / case for case in plan.cases),
                "output": options.out,
            }
            path = options.out / f"{reduced['name']}.json"
            path.write_text(plan.model_copy(update=reduced).model_dump_json(indent=1), encoding="utf-8")
            run = options.out / str(reduced["name"])
            subprocess.run([*COMMAND, "train", str(path)], check=True)
            print(f"\n{reduced['name']}", flush=True)
            cases = [str(options.data / case) for case in plan.cases]
            measure = ["--convention", "seed", "--split", str(run / "split.json"), "--runtime", "torch"]
            subprocess.run([*COMMAND, "evaluate", *cases, "-m", str(run / "model.safetensors"), *measure], check=True)


if __name__ == "__main__":
    main()
