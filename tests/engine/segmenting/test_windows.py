from threading import Event

import pytest
import torch

from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.segmenting.windows import choose_window, count_windows, run_windows

CARD = ModelCard(name="solid", architecture="unet", spatial_dims=3, window=(16, 32, 32))


def run_all(data_MZYX, card, window, run):
    """Return the output, and the events on the way."""
    message, running = [], run_windows(data_MZYX, card, window, run)
    while True:
        try:
            message.append(next(running))
        except StopIteration as ended:
            return ended.value, message


@pytest.mark.parametrize("axes", ["LPS zyx", "LPS xyz", "RAS xyz"])
@pytest.mark.parametrize("shape", [(16, 32, 32), (10, 20, 30), (40, 33, 70)])
def test_windows_put_together_are_what_the_network_says_of_the_whole(shape, axes) -> None:
    card = CARD.model_copy(update={"axes": axes})
    data = torch.randn(2, *shape)
    output, message = run_all(data, card, (16, 32, 32), lambda batch: batch.sum(1, keepdim=True) * 2)
    torch.testing.assert_close(output, data.sum(0, keepdim=True) * 2)
    assert message == [(n + 1, len(message)) for n in range(len(message))]
    assert len(message) == (1 if shape[0] <= 16 else count_windows(shape, (16, 32, 32)))


def test_a_case_smaller_than_the_window_is_one_window_of_its_own_size() -> None:
    assert choose_window(CARD, (9, 40, 20), 8) == (16, 32, 24)
    assert choose_window(CARD.model_copy(update={"window": None}), (9, 40, 20), 8) == (16, 40, 24)


def test_a_2d_network_sees_whole_slices() -> None:
    assert choose_window(ModelCard(name="flat", architecture="unet"), (9, 40, 24), 8) == (40, 24)


def test_whoever_stops_listening_stops_the_network() -> None:
    calls, go_on = [], Event()

    def run(batch):
        calls.append(len(batch))
        assert len(calls) == 1 or go_on.wait(10)
        return batch

    running = run_windows(torch.zeros(1, 64, 64, 64), CARD, (16, 32, 32), run)
    next(running)
    go_on.set()
    running.close()
    assert len(calls) < count_windows((64, 64, 64), (16, 32, 32)) - 1


def test_what_the_network_raises_reaches_the_caller() -> None:
    def run(batch):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        run_all(torch.zeros(1, 16, 32, 32), CARD, (16, 32, 32), run)
