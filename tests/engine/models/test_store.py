import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from napari_braintumor.engine.errors import DataError, ModelError, NameTaken
from napari_braintumor.engine.models import store
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.model_file import load_weights, read_card, read_weights_sha256, save_model
from napari_braintumor.engine.models.store import ModelStore, use_folder, user_folder

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
    with pytest.raises(ModelError, match="'kernel' holds values that are not finite"):
        save_model(tmp_path / "bad.safetensors", {"kernel": torch.tensor([float("nan")])}, CARD)
    assert not (tmp_path / "bad.safetensors").exists()


def test_a_saved_model_leaves_no_temporary_file_behind(model: Path) -> None:
    assert list(model.parent.iterdir()) == [model]


def test_a_model_is_found_by_name_and_by_path(model: Path) -> None:
    assert ModelStore(model.parent).find("tiny").path == model
    assert ModelStore().find(model).name == "tiny"


def test_an_unknown_name_lists_the_known_ones(model: Path) -> None:
    with pytest.raises(ModelError, match=r"no model 'huge'. Available: .*tiny"):
        ModelStore(model.parent).find("huge")


def test_a_missing_file_is_reported_missing(tmp_path: Path) -> None:
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
def test_a_card_with_two_alike_regions_is_refused(tmp_path: Path, same: str) -> None:
    card = CARD.model_dump(mode="json")
    card["regions"][1][same] = card["regions"][0][same]
    header = {"__metadata__": {"napari_braintumor_card": json.dumps(card)}}
    with pytest.raises(ModelError, match=f"two regions have the same {same}"):
        read_card(write_raw(tmp_path / "odd.safetensors", header))


def with_header(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        b"", b"hello", b"\xff" * 64, with_header(b"[1]"), with_header(b"[" * 100_000),
        with_header(b'{"__metadata__": 3}'), with_header(b'{"__metadata__": {"napari_braintumor_card": [1]}}'),
    ],
)  # fmt: skip
def test_a_foreign_file_is_not_a_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="is not a model file"):
        read_card(path)


def test_changed_weights_do_not_fit_their_checksum(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-3] ^= 1
    model.write_bytes(content)
    with pytest.raises(ModelError, match="do not match their checksum"):
        load_weights(model)


def test_truncated_weights_do_not_fit_their_checksum(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-10])
    with pytest.raises(ModelError, match="do not match their checksum"):
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
    with pytest.raises(ModelError, match="no model 'tiny' of yours to remove"):
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
    assert ModelStore().install(bundled, "mine").card.name == "mine"
    with pytest.raises(NameTaken, match="There is another model 'tiny' already"):
        ModelStore().install(bundled, "tiny")
    with pytest.raises(ModelError, match="Bundled models stay"):
        ModelStore().remove("glioma-unet")


# ------------------------------------------------------------------------------------------- copies and new names


@pytest.fixture
def installed(model: Path) -> Path:
    return ModelStore().install(model).path


def names() -> list[str]:
    return [stored.name for stored in ModelStore().list() if not stored.bundled]


def test_a_copy_has_the_same_weights_and_parent_under_another_name(tmp_path: Path) -> None:
    card = CARD.model_copy(update={"title": "Tiny", "parent": "old", "license": "CC0"})
    weights = {"a": torch.linspace(0, 1, 50)}
    original = ModelStore().install(save_model(tmp_path / "m.safetensors", weights, card)).path
    copy = ModelStore().duplicate("tiny", "my.copy-2")
    assert copy.path == original.parent / "my.copy-2.safetensors"
    assert read_card(copy.path) == copy.card == card.model_copy(update={"name": "my.copy-2", "title": ""})
    assert read_weights_sha256(copy.path) == read_weights_sha256(original)
    assert torch.equal(load_weights(copy.path)["a"], load_weights(original)["a"])
    assert names() == ["my.copy-2", "tiny"]


def test_a_model_of_the_package_can_be_copied_but_neither_renamed_nor_removed(models_folder: Path) -> None:
    copy = ModelStore().duplicate("glioma-unet", "mine")
    assert copy.path.parent == models_folder
    assert not copy.bundled
    assert load_weights(copy.path)
    with pytest.raises(ModelError, match=r"ships with the package and keeps its name\. Duplicate it"):
        ModelStore().rename("glioma-unet", "other")
    assert names() == ["mine"]


def test_a_renamed_model_is_the_same_under_its_new_name_only(installed: Path) -> None:
    digest = read_weights_sha256(installed)
    renamed = ModelStore().rename("tiny", "small")
    assert names() == ["small"]
    assert read_card(renamed.path).name == "small"
    assert read_weights_sha256(renamed.path) == digest
    assert load_weights(renamed.path)
    assert ModelStore().rename("small", "small").path == renamed.path
    assert names() == ["small"]


def test_children_keep_the_name_of_a_renamed_parent(installed: Path, tmp_path: Path) -> None:
    child = ModelCard(name="tuned", architecture="unet", parent="tiny")
    ModelStore().install(save_model(tmp_path / "tuned.safetensors", {"a": torch.zeros(3)}, child))
    assert [model.name for model in ModelStore().find_children("tiny")] == ["tuned"]
    ModelStore().rename("tiny", "small")
    assert ModelStore().find_children("small") == []
    assert [model.name for model in ModelStore().find_children("tiny")] == ["tuned"]


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "a b", "x" * 81, "ä"])
def test_a_name_that_is_none_is_refused(installed: Path, name: str) -> None:
    for act in (ModelStore().duplicate, ModelStore().rename):
        with pytest.raises(ModelError, match=r"cannot be the name of a model\. Expected up to 80 letters"):
            act("tiny", name)
    assert names() == ["tiny"]


@pytest.mark.parametrize("name", ["glioma-unet", "other"])
def test_a_name_that_is_taken_is_refused(installed: Path, tmp_path: Path, name: str) -> None:
    card = ModelCard(name="other", architecture="unet")
    ModelStore().install(save_model(tmp_path / "o.safetensors", {"a": torch.zeros(3)}, card))
    for act in (ModelStore().duplicate, ModelStore().rename):
        with pytest.raises(ModelError, match=f"There is another model '{name}' already"):
            act("tiny", name)
    assert names() == ["other", "tiny"]


def test_what_is_not_there_cannot_be_copied_or_renamed(installed: Path) -> None:
    (installed.parent / "broken.safetensors").write_bytes(b"nothing")
    for act in (ModelStore().duplicate, ModelStore().rename):
        with pytest.raises(ModelError, match="The model 'gone' is gone"):
            act("gone", "new")
        with pytest.raises(ModelError, match=r"'broken\.safetensors' is not a model file"):
            act("broken", "new")


def test_of_two_models_with_one_name_the_one_that_is_meant_is_removed(installed: Path) -> None:
    twin = installed.with_name("by-hand.safetensors")
    twin.write_bytes(installed.read_bytes())
    ModelStore().remove(twin)
    assert installed.exists()
    assert not twin.exists()


def test_a_damaged_model_can_be_removed(installed: Path) -> None:
    broken = installed.with_name("broken.safetensors")
    broken.write_bytes(b"nothing")
    ModelStore().remove("broken")
    assert not broken.exists()


# -------------------------------------------------------------------------------------------- several at once


def test_a_model_that_is_being_written_is_not_listed(installed: Path) -> None:
    installed.with_name(".77.other.safetensors").write_bytes(b"half")
    assert names() == ["tiny"]


def test_a_model_that_goes_away_while_it_is_looked_at_is_not_listed(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> ModelCard:
        if path == installed:
            path.unlink()
        return read_card(path)

    monkeypatch.setattr(store, "read_card", read)
    assert names() == []


def test_of_two_that_take_a_name_at_once_one_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = store.copy_with_card

    def write_slowly(source: Path, target: Path, card: ModelCard) -> None:
        write(source, target, card)
        installed.with_name("new.safetensors").write_bytes(b"of the other napari")

    monkeypatch.setattr(store, "copy_with_card", write_slowly)
    with pytest.raises(ModelError, match="There is another model 'new' already"):
        ModelStore().duplicate("tiny", "new")
    assert installed.with_name("new.safetensors").read_bytes() == b"of the other napari"
    assert {path.name for path in installed.parent.iterdir()} == {"tiny.safetensors", "new.safetensors"}


def test_where_there_are_no_hard_links_models_are_written_too(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError("not on this file system")

    monkeypatch.setattr(os, "link", link)
    assert load_weights(ModelStore().duplicate("tiny", "new").path)
    assert {path.name for path in installed.parent.iterdir()} == {"tiny.safetensors", "new.safetensors"}


def test_processes_that_write_at_once_leave_whole_models_and_nothing_else(installed: Path) -> None:
    code = """
import sys
from napari_braintumor.engine.errors import ModelError
from napari_braintumor.engine.models.store import ModelStore
done = 0
for number in range(20):
    try:
        ModelStore().duplicate("tiny", f"copy-{number}")
        done += 1
    except ModelError:
        pass
    assert not [model.problem for model in ModelStore().list() if model.problem]
print(done)
"""
    workers = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    message = [int(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sum(message) == 20  # each name was given once
    assert len(list(installed.parent.iterdir())) == 21
    for model in ModelStore().list():
        load_weights(model.path)


# ------------------------------------------------------------------------------------------------- the folder


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("BRAINTUMOR_MODELS")
    yield
    use_folder(None)


def test_the_environment_decides_where_models_lie_then_the_preferences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_environment: None
) -> None:
    own = user_folder()
    assert own.name == "models"
    use_folder(tmp_path / "chosen")
    assert user_folder() == ModelStore().folder == tmp_path / "chosen"
    monkeypatch.setenv("BRAINTUMOR_MODELS", str(tmp_path / "message"))
    assert user_folder() == tmp_path / "message"
    monkeypatch.delenv("BRAINTUMOR_MODELS")
    use_folder(None)
    assert user_folder() == own


def test_a_folder_that_is_none_or_is_missing_holds_no_models(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "missing"):
        assert all(model.bundled for model in ModelStore(folder).list())


def test_a_folder_that_cannot_be_written_to_is_reported(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        ModelStore(tmp_path / "file").install(model)
