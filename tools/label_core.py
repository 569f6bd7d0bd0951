"""Mark a tumor core in LGG cases, whose masks show the whole tumor only, and pack them for the next training.

In gliomas without enhancement readers of BraTS call the solid middle of the tumor its core. A network that has seen few
such patients calls all of it edema. So where a teacher finds no enhancement inside the expert's mask, the core becomes
what lies deep inside the mask, together with what the teacher calls core. Cases with enhancement, without a T1ce, and
of validation patients keep the expert's mask alone; held-out patients are left out.

Usage: python tools/label_core.py PLAN.json TEACHER.safetensors DATA OUT.cases.zip
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from napari_braintumor.engine.files.cases import CaseFiles, find_cases
from napari_braintumor.engine.models.loading import load_network
from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.plan_files import read_plan
from napari_braintumor.engine.training.prepared import TrainingCase, write_archive
from napari_braintumor.engine.training.scoring import predict_logits
from napari_braintumor.engine.training.splits import know_patients
from napari_braintumor.engine.training.training_cases import load_training_case

FOLDERS = ("lgg", "lgg_half")
PIXEL_MM = 2.0
SLICE_MM = 5.0
"""About how far slices of LGG lie apart; their files do not say."""

NO_ENHANCEMENT_ML = 0.3
"""A teacher that finds less than this found nothing."""

RIM_MM = 3.0
RIM_SHARE, RIM_SHARE_BESIDE_TEACHER = 0.3, 0.4
"""The rim that is not core: at least so many mm, and this share of the tumor's greatest depth.

On the four BraTS patients with a non-enhancing core above 5 mL, a rim of 0.2 or 0.3 of the depth in 3-D gives the core
with a Dice of 0.86, 0.75, 0.52 and 0.71 at best.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("archive", type=Path)
    options = parser.parse_args()
    plan = read_plan(options.plan)
    cases = find_cases([options.data / folder for folder in FOLDERS])
    write_archive(options.archive, plan, label_cases(cases, plan, load_network(options.teacher)))


def label_cases(cases: list[CaseFiles], plan: TrainPlan, teacher: torch.nn.Module) -> Iterator[TrainingCase]:
    who = know_patients(cases, plan)
    held_out, validation = who.find(plan.held_out), who.find(plan.validation)
    for files in cases:
        patient = who.patient_of(files.name)
        if patient in held_out:
            continue
        case = replace(load_training_case(files, plan), patient=patient)
        if patient not in validation and case.prepared.present[plan.modalities.index("T1ce")]:
            case = label_case(case, plan, teacher)
        print(f"{case.name}: {'core marked' if case.known.all() else 'as it was'}", flush=True)
        yield case


def label_case(case: TrainingCase, plan: TrainPlan, teacher: torch.nn.Module) -> TrainingCase:
    """Return a case with a core and without enhancing tumor, or as it is where the teacher finds enhancing tumor."""
    slices = np.arange(len(case.slices))
    logits = predict_logits(teacher, case, slices, plan.batch_size, torch.device("cpu"))
    found = np.concatenate([(part > 0).numpy() for part in logits]).swapaxes(0, 1)
    indices = [plan.regions.index(name) for name in ("whole tumor", "tumor core", "enhancing tumor")]
    whole = case.regions[indices[0]]
    core, enhancing = (found[index] & whole for index in indices[1:])
    if enhancing.sum() * PIXEL_MM**2 * SLICE_MM / 1000 >= NO_ENHANCEMENT_ML:
        return case
    share = RIM_SHARE_BESIDE_TEACHER if core.sum() > 0.25 * whole.sum() else RIM_SHARE
    regions = case.regions.copy()
    regions[indices[1]] = core | find_depths(whole, share)
    regions[indices[2]] = False
    return replace(case, regions=regions, known=np.ones_like(case.known))


def find_depths(mask_ZYX: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Return what lies deeper in a mask, slice by slice, than a share of its greatest depth and than `RIM_MM`."""
    padded = np.pad(mask_ZYX, ((0, 0), (1, 1), (1, 1)))
    depth = np.stack([ndimage.distance_transform_edt(plane, sampling=PIXEL_MM) for plane in padded])[:, 1:-1, 1:-1]
    return depth > max(RIM_MM, share * float(depth.max(initial=0)))


if __name__ == "__main__":
    main()
