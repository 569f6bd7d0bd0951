import numpy as np
import torch

from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training.scoring import average_dice, validate
from napari_braintumor.engine.training.training_cases import Part, load_training_case


def test_validation_measures_only_the_slices_that_count(toy_plan, case_folder) -> None:
    case = load_training_case(find_cases(case_folder / "case0")[0], toy_plan)

    class Perfect(torch.nn.Module):
        """Knows the answer for slice 5, and nothing else."""

        def forward(self, x):
            logits = torch.full((len(x), 3, *x.shape[2:]), -1.0)
            for n, image in enumerate(x):
                if torch.equal(image, torch.from_numpy(case.prepared.data[:, 5].astype(np.float32))):
                    logits[n][torch.from_numpy(case.regions[:, 5])] = 1.0
            return logits

    device = torch.device("cpu")
    only = validate(Perfect(), [Part(case, np.array([5]))], toy_plan, device)
    assert only == dict.fromkeys(toy_plan.regions, 1.0)
    both = validate(Perfect(), [Part(case, np.array([4, 5]))], toy_plan, device)
    assert 0.3 < both["whole tumor"] < 0.9
    assert average_dice({}) is None
