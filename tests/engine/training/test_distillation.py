from dataclasses import replace

import numpy as np

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training.distillation import take_unreviewed
from napari_braintumor.engine.training.drawing import (
    SliceDataset,
)
from napari_braintumor.engine.training.training_cases import Part, load_training_case


def test_slices_that_nobody_reviewed_take_the_parent_s_answers_as_target(toy_plan, case_folder) -> None:
    case = replace(find_cases(case_folder)[0], reviewed=(4, 6))
    loaded = load_training_case(case, toy_plan)
    answers = np.full(loaded.regions.shape, 0.25, np.float16)
    old = take_unreviewed(Part(loaded, loaded.counted), answers)
    assert not set(old.slices) & set(loaded.counted)
    _, target, known = SliceDataset([old], (), toy_plan)[0]
    assert 0.25 in target.unique().tolist()
    assert known.all()
    everything = replace(loaded, counted=np.arange(len(loaded.slices)))
    assert take_unreviewed(Part(everything, everything.counted), answers) is None
