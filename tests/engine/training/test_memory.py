import ctypes
import sys

import pytest
import torch

from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.memory import count_activation_bytes, keep_freed_memory


def test_activations_are_counted_without_the_weights(toy_plan) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 1), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1))
    fit = Fit(network, toy_plan, torch.device("cpu"))
    batch = [torch.randn(2, 4, 32, 32), torch.rand(2, 3, 32, 32).round(), torch.ones(2, 3, dtype=torch.bool)]
    counted = count_activation_bytes(network, lambda: fit.accumulate(network, batch))
    assert counted >= 4 * 2 * 32 * 32 * (4 + 8)
    assert counted < 4 * 2 * 32 * 32 * 64


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc can be asked to"
)
def test_freed_memory_is_used_again_without_the_system_clearing_it() -> None:
    import resource

    def count_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.zeros(16 * 2**20)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with keep_freed_memory():
        # What else the process holds may lie in the way at first, so that the heap grows once more.
        assert min(count_faults() for _ in range(5)) < 1000
    assert count_faults() > 4 * 1000
