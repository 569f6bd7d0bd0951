"""What only a CUDA card can show. BRAINTUMOR_REHEARSAL=1 runs on the CPU what does not need its memory or its speed."""

import os
from contextlib import closing

import numpy as np
import pytest
import torch
from torch import distributed

from napari_braintumor.engine import segment, train
from napari_braintumor.engine.events import EpochDone, Noted, Resumed, Segmented, Trained
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.files.reading import read_case
from napari_braintumor.engine.files.sample import sample_folder
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.engine.models.model_file import load_weights
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.training.device_batches import DeviceSlices, fits, make_device_batches
from napari_braintumor.engine.training.drawing import SliceDataset
from napari_braintumor.engine.training.fit import Fit
from napari_braintumor.engine.training.runs import Run
from napari_braintumor.engine.training.training_cases import load_data
from napari_braintumor.engine.volumes import Volume

pytestmark = pytest.mark.cuda
REHEARSAL = os.environ.get("BRAINTUMOR_REHEARSAL") == "1"
needs_card = pytest.mark.skipif(not torch.cuda.is_available(), reason="only a CUDA card can show it")


@pytest.fixture(scope="module")
def card() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if REHEARSAL:
        return torch.device("cpu")
    pytest.skip("there is no CUDA card here")


@pytest.fixture(scope="module")
def volume():
    whole = read_case(find_cases(sample_folder())[0])
    if not REHEARSAL:
        return whole
    data, (z, y, x) = whole.data[:, ::4], whole.spacing
    return Volume(data, whole.modalities, default_grid(data.shape[1:], (4 * z, y, x)), whole.name)


@pytest.fixture
def limited(card):
    """Limit the memory that this process may take of the card; the limit goes with the test."""

    def limit(most_bytes: float) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(most_bytes / torch.cuda.mem_get_info()[1])

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def run_to_end(volume, **settings) -> tuple[np.ndarray, list[str]]:
    events = list(segment(volume, SegmentConfig(runtime="torch", **settings)))
    assert isinstance(events[-1], Segmented)
    return events[-1].segmentation.labels, [event.text for event in events if isinstance(event, Noted)]


@pytest.fixture(scope="module")
def expected(volume) -> np.ndarray:
    return run_to_end(volume, device="cpu")[0]


def least_dice(labels, expected) -> float:
    """The least Dice of the regions that labels say, the outermost first."""
    dice = []
    for members in ((1, 2, 3), (1, 3), (3,)):
        one, other = np.isin(labels, members), np.isin(expected, members)
        assert other.any()
        dice.append(2 * (one & other).sum() / (one.sum() + other.sum()))
    return float(min(dice))


@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_labels_on_the_card_are_those_of_the_cpu(card, volume, expected, precision) -> None:
    labels, notes = run_to_end(volume, device=card.type, precision=precision)
    assert least_dice(labels, expected) >= 0.999
    assert not [note for note in notes if "Memory" in note]


@needs_card
@pytest.mark.parametrize(
    ("rooms", "said"), [((0.4, 0.25, 0.15, 0.08), "slices at a time"), ((0.0,), "on the CPU, more slowly")]
)
def test_labels_are_the_same_where_the_card_has_too_little_memory(card, volume, expected, limited, rooms, said) -> None:
    settings = {"device": "cuda", "precision": "float32", "batch_size": 64, "search_step_mm": 0}
    run_to_end(volume, **settings)  # the network is there now
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    run_to_end(volume, **settings)
    needed = torch.cuda.max_memory_reserved() - before
    everywhere = run_to_end(volume, device="cpu", search_step_mm=0)[0]
    for room in rooms:  # with less room cuDNN takes kernels that need less, so how much is too little is not known
        limited(before + room * needed + 2**20)
        labels, notes = run_to_end(volume, **settings)
        assert least_dice(labels, everywhere) >= 0.999
        if any(said in note for note in notes):
            return
    raise AssertionError(f"there was always room enough: {notes}")


@needs_card
def test_training_cuts_its_batches_where_the_card_has_too_little_memory(toy_plan, tmp_path, limited) -> None:
    update = {"device": "cuda", "output": tmp_path, "batch_size": 96, "epochs": 1, "steps_per_epoch": 3}
    update |= {"options": {"width": 16, "dropout": 0.0}, "precision": "float32"}
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    list(train(toy_plan.model_copy(update={**update, "name": "free"})))
    limited(before + 0.5 * (torch.cuda.max_memory_reserved() - before))
    *events, last = train(toy_plan.model_copy(update={**update, "name": "limited"}))
    assert isinstance(last, Trained)
    assert [e for e in events if isinstance(e, Noted) and "each batch now goes through in" in e.text]


@pytest.fixture
def short_plan(toy_plan, card, tmp_path, monkeypatch):
    """A few steps that give the same weights each time, as far as the card can."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    update = {"device": card.type, "output": tmp_path, "epochs": 2, "steps_per_epoch": 6, "precision": "float32"}
    # By Adam, rounding alone would move weights whose gradients are nothing but rounding.
    update |= {"optimizer": "sgd", "learning_rate": 0.05}
    return toy_plan.model_copy(update=update)


def weights_of(run: Run) -> torch.Tensor:
    tensors = load_weights(run.model_path)
    return torch.cat([tensors[name].float().flatten().cpu() for name in sorted(tensors)])


def difference(one: Run, other: Run) -> float:
    return float((weights_of(one) - weights_of(other)).norm() / weights_of(one).norm())


def test_a_killed_run_resumes_from_its_checkpoint_on_the_card_and_on_the_cpu(short_plan) -> None:
    whole, broken = (short_plan.model_copy(update={"name": name}) for name in ("whole", "broken"))
    list(train(whole))
    with closing(train(broken)) as events:
        for event in events:
            if isinstance(event, EpochDone):
                next(events)  # its checkpoint is written behind it
                break
    *rest, last = train(broken)
    assert [event.step for event in rest if isinstance(event, Resumed)] == [6]
    assert isinstance(last, Trained)
    runs = [Run(plan.output.resolve() / plan.name) for plan in (whole, broken)]
    assert difference(*runs) < 0.02

    network = build_network("unet", in_channels=4, out_channels=3, options=short_plan.options)
    fit = Fit(network, short_plan.model_copy(update={"device": "cpu"}), torch.device("cpu"))
    fit.load(runs[1].checkpoint_path)
    *_, data = load_data(short_plan, short_plan.output / "cache")
    batch = next(make_device_batches(SliceDataset(data.training, (), short_plan), 12, 13, torch.device("cpu")))
    assert np.isfinite(fit.take_step(batch)[0])
    assert fit.state.step == 13


def test_a_group_of_one_process_learns_what_a_process_alone_learns(short_plan, card, tmp_path) -> None:
    alone, grouped = (short_plan.model_copy(update={"name": name}) for name in ("alone", "grouped"))
    list(train(alone))
    backend = "nccl" if card.type == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        *_, last = train(grouped)
    finally:
        distributed.destroy_process_group()
    assert isinstance(last, Trained)
    assert difference(*(Run(plan.output.resolve() / plan.name) for plan in (alone, grouped))) < 0.02


def test_batches_made_on_the_card_are_those_made_on_the_cpu(short_plan, card, tmp_path) -> None:
    *_, data = load_data(short_plan, tmp_path / "cache")
    dataset = SliceDataset(data.training, (), short_plan)
    there = [[part.cpu() for part in batch] for batch in make_device_batches(dataset, 3, 7, card)]
    slices = DeviceSlices(dataset, torch.device("cpu"))
    assert len(there) == 4
    for number, batch in enumerate(there, 3):
        for one, other in zip(batch, slices.make_batch(number), strict=True):
            assert float((one.float() - other.float()).abs().mean()) < 1e-3  # a mask's edge may fall on either side


@needs_card
def test_reduced_precision_learns_from_batches_made_on_the_card(toy_plan, card, tmp_path) -> None:
    plan = toy_plan.model_copy(update={"device": "cuda", "output": tmp_path})
    *_, data = load_data(plan, tmp_path / "cache")
    assert fits(SliceDataset(data.training, (), plan), card)
    *_, last = train(plan)
    assert isinstance(last, Trained)
    assert last.score > 0.5
