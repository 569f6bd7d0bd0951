from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.files.cases import find_cases
from napari_braintumor.engine.training.drawing import (
    SliceDataset,
    choose_workers,
    cut_patch,
    drop_modalities,
    make_loader,
)
from napari_braintumor.engine.training.plan import FineTuning
from napari_braintumor.engine.training.training_cases import Part, TrainingData, load_data, load_training_case


@pytest.fixture(scope="module")
def data(toy_plan, tmp_path_factory) -> TrainingData:
    *_, data = load_data(toy_plan, tmp_path_factory.mktemp("cache"))
    return data


def draw(data, plan, count):
    dataset = SliceDataset(data.training, data.replay, plan)
    return [torch.stack(parts) for parts in zip(*(dataset[n] for n in range(count)), strict=True)]


def test_slices_have_the_plan_s_shape_and_masks_stay_binary(toy_plan, data) -> None:
    image, regions, known = draw(data, toy_plan.model_copy(update={"augmentation": "full"}), 6)
    assert image.shape == (6, 4, 64, 64)
    assert regions.shape == (6, 3, 64, 64)
    assert set(regions.unique().tolist()) <= {0.0, 1.0}
    assert known.all()
    assert image.isfinite().all()


def test_a_slice_depends_on_its_number_alone(toy_plan, data) -> None:
    plan = toy_plan.model_copy(update={"augmentation": "full"})
    first, second = (SliceDataset(data.training, (), plan) for _ in range(2))
    forwards = [first[n] for n in range(8)]
    backwards = [second[n] for n in reversed(range(8))][::-1]
    for one, two in zip(forwards, backwards, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(forwards[0][0], forwards[1][0])


def test_masks_move_with_their_image(toy_plan, data) -> None:
    plan = toy_plan.model_copy(update={"augmentation": "full", "modality_dropout": 0.0, "tumor_share": 1.0})
    image, regions, _ = draw(data, plan, 24)
    inside, ring = regions[:, 0] > 0, (image[:, 3] != 0) & (regions[:, 0] == 0)
    brighter = [
        float(image[n, 3][inside[n]].mean() - image[n, 3][ring[n]].mean()) for n in range(24) if inside[n].sum() > 30
    ]
    assert len(brighter) > 12
    assert min(brighter) > 0.3  # FLAIR is bright where the moved mask says tumor, in every slice


def test_tumor_slices_are_drawn_as_often_as_asked(toy_plan, data) -> None:
    _, regions, _ = draw(data, toy_plan.model_copy(update={"tumor_share": 1.0, "augmentation": "none"}), 40)
    assert regions.any(dim=(1, 2, 3)).all()


def test_two_processes_draw_the_two_halves_of_one_batch(toy_plan, data) -> None:
    dataset = SliceDataset(data.training, (), toy_plan)

    def batches(size: int, rank: int, processes: int) -> list:
        plan = toy_plan.model_copy(update={"batch_size": size})
        return list(make_loader(dataset, plan, 1, 4, rank=rank, processes=processes, workers=0, pin_memory=False))

    whole = batches(4, 0, 1)
    halves = zip(batches(2, 0, 2), batches(2, 1, 2), strict=True)
    assert len(whole) == 3
    for one, (left, right) in zip(whole, halves, strict=True):
        assert torch.equal(one[0], torch.cat([left[0], right[0]]))


def test_workers_prepare_the_same_batches(toy_plan, data) -> None:
    dataset = SliceDataset(data.training, (), toy_plan)
    here, there = (
        list(make_loader(dataset, toy_plan, 0, 3, rank=0, processes=1, workers=workers, pin_memory=False))
        for workers in (0, 1)
    )
    assert all(torch.equal(a[0], b[0]) for a, b in zip(here, there, strict=True))


@pytest.mark.parametrize(
    ("cores", "threads", "on_gpu", "expected"),
    [(2, 2, False, 0), (2, 2, True, 1), (4, 2, False, 0), (16, 16, False, 0), (16, 8, False, 1), (16, 8, True, 8)],
)
def test_workers_do_not_take_cores_from_the_network(
    toy_plan, monkeypatch, cores: int, threads: int, on_gpu: bool, expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert choose_workers(toy_plan, on_gpu) == expected
    assert choose_workers(toy_plan.model_copy(update={"workers": 3}), on_gpu) == 3


def test_processes_of_one_machine_share_its_cores_among_their_workers(toy_plan, monkeypatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_workers(toy_plan, True) == 3


def test_preparing_a_slice_leaves_torch_its_threads(toy_plan, data) -> None:
    threads = torch.get_num_threads()
    draw(data, toy_plan.model_copy(update={"augmentation": "full"}), 2)
    assert torch.get_num_threads() == threads


def test_modality_dropout_never_blanks_all_and_never_invents() -> None:
    present = np.array([True, True, False, True])
    random = np.random.default_rng(0)
    kept = [tuple(drop_modalities(present, 1.0, random).tolist()) for _ in range(200)]
    assert all(any(k) and not k[2] for k in kept)
    assert len(set(kept)) >= 6


def test_an_array_smaller_than_the_patch_lies_whole_inside_it() -> None:
    small = np.ones((2, 5, 7), np.float32)
    cut = cut_patch([small, small[:1] * 3], (16, 16), np.random.default_rng(0))
    assert cut.shape == (3, 16, 16)
    assert cut[0].sum() == small[0].sum()
    assert np.array_equal(cut[2], cut[0] * 3)


def test_groups_all_of_weight_zero_are_refused(toy_plan, data) -> None:
    plan = toy_plan.model_copy(update={"group_weights": {part.case.group: 0.0 for part in data.training}})
    with pytest.raises(DataError, match="has the weight 0"):
        SliceDataset(data.training, (), plan)


def test_only_reviewed_slices_are_learned_from(toy_plan, case_folder) -> None:
    case = replace(find_cases(case_folder)[0], reviewed=(4, 6))
    loaded = load_training_case(case, toy_plan)
    assert loaded.slices[loaded.counted].tolist() == [4, 6]
    dataset = SliceDataset([Part(loaded, loaded.counted)], (), toy_plan)
    drawn = {dataset.new.draw(np.random.default_rng(n))[1] for n in range(60)}
    assert drawn == set(loaded.counted.tolist())


def test_half_of_a_tuning_batch_comes_from_the_replay_set(toy_plan, data) -> None:
    plan = toy_plan.model_copy(update={"fine_tuning": FineTuning(), "start_from": "x"})
    new, old = data.training[0], data.training[1]
    old = replace(old, case=replace(old.case, known=np.zeros_like(old.case.known)))
    dataset = SliceDataset([new], [old], plan)
    from_new = [bool(known.any()) for _, _, known in (dataset[number] for number in range(16))]
    assert from_new.count(True) == from_new.count(False) == 8
