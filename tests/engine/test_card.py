from __future__ import annotations

import pytest

from napari_braintumor.engine.card import OWN_SLICES, Metric, ModelCard
from napari_braintumor.engine.store import ModelStore


def measured(data: str, held_out: bool) -> Metric:
    return Metric(data=data, region="whole tumor", modalities=("FLAIR",), mean=0.8, n=3, held_out=held_out)


NEVER, OWN, STOPPED = "never validated", "only on slices of the scans it learned from", "stopped early, after 12%"


@pytest.mark.parametrize(
    ("metrics", "stopped_at", "doubted"),
    [
        ((), None, [NEVER]),
        ((), 0.12, [NEVER, STOPPED]),
        ((measured("BraTS", True),), None, []),
        ((measured("validation", False),), None, []),
        ((measured("validation", False),), 0.12, [STOPPED]),
        ((measured(OWN_SLICES, False),), None, [OWN]),
        ((measured("slices kept back", False),), 0.12, [OWN, STOPPED]),
        ((measured(OWN_SLICES, False), measured("LGG", True)), None, []),
    ],
)
def test_a_model_is_doubted_until_other_patients_were_measured_and_its_training_came_to_an_end(
    metrics, stopped_at, doubted
) -> None:
    card = ModelCard(name="a", architecture="unet", metrics=metrics, stopped_at=stopped_at)
    assert len(card.doubts) == len(doubted)
    assert all(part in doubt for part, doubt in zip(doubted, card.doubts, strict=True))
    assert all(doubt.endswith(".") for doubt in card.doubts)


def test_models_that_ship_with_the_package_are_not_doubted() -> None:
    assert all(model.card is not None and not model.card.doubts for model in ModelStore().list() if model.bundled)
