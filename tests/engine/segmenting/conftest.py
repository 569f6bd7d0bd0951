from collections.abc import Callable
from pathlib import Path

import pytest

from napari_braintumor.engine.models.model_file import load_weights, read_card, save_model


@pytest.fixture
def with_card(tmp_path: Path) -> Callable[..., str]:
    """Write a model with another card, and return its path."""

    def write(model, **update) -> str:
        card = read_card(model).model_copy(update=update)
        return str(save_model(tmp_path / "changed.safetensors", load_weights(model), card))

    return write
