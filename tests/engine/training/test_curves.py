from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_braintumor.engine.errors import DataError
from napari_braintumor.engine.events import BatchDone, EpochDone, Noted, Resumed
from napari_braintumor.engine.training.curves import collect_curves, draw_curves, save_curves


def events(steps: int, first: int = 1):
    for step in range(first, steps + 1):
        yield BatchDone(step, 100, 1 / step, 1e-3)
        if step % 5 == 0:
            yield EpochDone(step // 5, 20, 1 / step, 1e-3, {"whole tumor": 0.5 + step / 1000}, 0.5, True, 1.0)


def test_curves_hold_every_batch_and_epoch() -> None:
    curves = collect_curves([Noted("x"), *events(20)])
    assert len(curves.losses) == len(curves.rates) == 20
    assert [step for step, _ in curves.epoch_losses] == [5, 10, 15, 20]
    assert curves.dice["whole tumor"][-1] == (20, 0.52)


def test_what_a_resumed_run_does_again_is_drawn_once() -> None:
    curves = collect_curves([*events(13), Resumed(10), *events(20, first=11)])
    assert [step for step, _ in curves.losses] == list(range(1, 21))
    assert len(curves.epoch_losses) == 4


def test_the_picture_has_the_size_and_colors_asked_for() -> None:
    picture = draw_curves(collect_curves(events(20)), 300, 420, background="#102030")
    assert picture.shape == (420, 300, 4)
    assert picture[0, 0].tolist() == [16, 32, 48, 255]
    assert len(np.unique(picture.reshape(-1, 4), axis=0)) > 50


def test_no_event_and_very_many_events_can_both_be_drawn() -> None:
    assert draw_curves(collect_curves([]), 300, 200).shape == (200, 300, 4)
    assert draw_curves(collect_curves(events(20_000)), 300, 200).shape == (200, 300, 4)


def test_the_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    save_curves(collect_curves(events(20)), tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1200, 360)
    with pytest.raises(DataError, match="cannot be written"):
        save_curves(collect_curves([]), tmp_path / "nowhere" / "curves.png")
