import json
import struct
from pathlib import Path

import pytest
import torch

from napari_braintumor.engine.card import ModelCard
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.store import ModelStore, load_weights, read_card, save_model

CARD = ModelCard(name="tiny", architecture="unet")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "tiny.safetensors", {"a": torch.linspace(0, 1, 50), "n": torch.tensor(3)}, CARD)


def write_raw(path: Path, header: object) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


def test_weights_and_card_come_back_as_they_were_saved(model: Path) -> None:
    weights = load_weights(model)
    assert weights["a"] == pytest.approx(torch.linspace(0, 1, 50), abs=1e-3)
    assert weights["a"].dtype == torch.float32
    assert weights["n"] == 3
    assert read_card(model) == CARD


def test_large_statistics_survive_and_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = save_model(tmp_path / "wide.safetensors", {"running_var": torch.tensor([1e6, 1e-7])}, CARD)
    assert torch.equal(load_weights(path)["running_var"], torch.tensor([1e6, 1e-7]))
    for bad in (torch.full((2, 2), 1e6), torch.tensor([float("nan")])):
        with pytest.raises(ModelError, match="'kernel' holds values that are not finite"):
            save_model(tmp_path / "bad.safetensors", {"kernel": bad}, CARD)
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_saved_model_leaves_no_temporary_file_behind(model: Path) -> None:
    assert list(model.parent.iterdir()) == [model]


def test_a_model_is_found_by_name_and_by_path(model: Path) -> None:
    assert ModelStore(model.parent).find("tiny").path == model
    assert ModelStore().find(model).name == "tiny"


def test_an_unknown_name_lists_the_known_ones(model: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'huge'. Known are: .*tiny"):
        ModelStore(model.parent).find("huge")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        ModelStore().find(tmp_path / "none.safetensors")


def test_a_file_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no model card"):
        read_card(write_raw(tmp_path / "bare.safetensors", {"__metadata__": {}}))


def test_a_card_with_an_absurd_value_is_refused(tmp_path: Path) -> None:
    card = CARD.model_dump(mode="json") | {"threshold": 7}
    header = {"__metadata__": {"napari_braintumor_card": json.dumps(card)}}
    with pytest.raises(ModelError, match="not valid: threshold"):
        read_card(write_raw(tmp_path / "odd.safetensors", header))


@pytest.mark.parametrize("same", ["name", "label"])
def test_a_card_whose_regions_cannot_be_told_apart_is_refused(tmp_path: Path, same: str) -> None:
    card = CARD.model_dump(mode="json")
    card["regions"][1][same] = card["regions"][0][same]
    header = {"__metadata__": {"napari_braintumor_card": json.dumps(card)}}
    with pytest.raises(ModelError, match=f"two regions have the same {same}"):
        read_card(write_raw(tmp_path / "odd.safetensors", header))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64, struct.pack("<Q", 3) + b"[1]"])
def test_a_foreign_file_is_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a model file"):
        read_card(path)


def test_changed_weights_do_not_fit_their_checksum(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-3] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match="do not fit their checksum"):
        load_weights(model)


def test_truncated_weights_do_not_fit_their_checksum(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(ModelError, match="do not fit their checksum"):
        load_weights(model)


def test_a_damaged_model_is_listed_with_its_problem(model: Path) -> None:
    (model.parent / "broken.safetensors").write_bytes(b"nothing")
    listed = {entry.name: entry for entry in ModelStore(model.parent).list()}
    assert "is not a model file" in listed["broken"].problem
    assert listed["tiny"].problem == ""
    with pytest.raises(ModelError, match="is not a model file"):
        ModelStore(model.parent).find("broken")


def test_a_model_is_installed_under_its_name_and_removed_again(model: Path, models_folder: Path) -> None:
    installed = ModelStore().install(model)
    assert installed.path == models_folder / "tiny.safetensors"
    assert ModelStore().find("tiny").card == CARD
    assert ModelStore().install(model).path == installed.path  # the same file once more is no conflict
    ModelStore().remove("tiny")
    assert "tiny" not in [stored.name for stored in ModelStore().list()]
    with pytest.raises(ModelError, match="no model 'tiny' of your own to remove"):
        ModelStore().remove("tiny")


def test_an_installed_model_never_takes_another_s_place(model: Path, tmp_path: Path) -> None:
    ModelStore().install(model)
    other = save_model(tmp_path / "other.safetensors", {"a": torch.zeros(3)}, CARD)
    with pytest.raises(ModelError, match="There is another model 'tiny' already"):
        ModelStore().install(other)
    card = ModelCard(name="glioma-unet", architecture="unet")
    bundled = save_model(tmp_path / "b.safetensors", {"a": torch.zeros(3)}, card)
    with pytest.raises(ModelError, match="There is another model 'glioma-unet' already"):
        ModelStore().install(bundled)
    with pytest.raises(ModelError, match="Models of the package stay"):
        ModelStore().remove("glioma-unet")
