from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from napari.utils.events import EventedModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QInputDialog,
    QLabel,
    QMessageBox,
    QPushButton,
)

from napari_braintumor import engine
from napari_braintumor.engine.anatomy import GLIOMA_REGIONS, MODALITIES, REGION_NAMES, REGIONS
from napari_braintumor.engine.errors import DescriptionNeeded, ModelError, NameTaken
from napari_braintumor.engine.events import (
    Compared,
    CompareEvent,
    Downloaded,
    Installed,
    ModelSegmented,
    Noted,
    SlicesDone,
    Started,
)
from napari_braintumor.engine.exchange import SUFFIXES
from napari_braintumor.engine.exchange.catalogue import Entry, offers_models
from napari_braintumor.engine.measuring.comparison import compare_segmentations
from napari_braintumor.engine.models.card import Metric, ModelCard
from napari_braintumor.engine.models.model_file import read_card, save_model
from napari_braintumor.engine.models.registry import build_network
from napari_braintumor.engine.models.store import ModelStore, StoredModel, use_folder
from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.volumes import Reference, Segmentation, Volume
from napari_braintumor.layers import layers_from_case
from napari_braintumor.widgets.models import dock as models_dock
from napari_braintumor.widgets.models.compare import comparison_as_tsv, tabulate
from napari_braintumor.widgets.models.description import DescriptionForm
from napari_braintumor.widgets.models.dock import ModelsDock
from napari_braintumor.widgets.models.download import DownloadForm
from napari_braintumor.widgets.models.lineage import describe_lineage
from napari_braintumor.widgets.models.tree import COLUMNS
from napari_braintumor.widgets.segmenting.dock import SegmentDock
from napari_braintumor.widgets.shared import preferences
from napari_braintumor.widgets.training.dock import TrainDock

WHOLE = GLIOMA_REGIONS[:1]


def put(name: str, size: int = 3, **card: Any) -> Path:
    """Put a model into the user's store."""
    validated = Metric(data="validation", region="whole tumor", modalities=MODALITIES, mean=0.5, n=3, held_out=False)
    made = ModelCard(name=name, architecture="unet", **{"accepts_missing": True, "metrics": (validated,), **card})
    return save_model(ModelStore().folder / f"{name}.safetensors", {"a": torch.zeros(size)}, made)


def measured(mean: float, n: int = 9) -> dict[str, Any]:
    metric = Metric(data="LGG", region="whole tumor", modalities=("FLAIR",), mean=mean, n=n, held_out=True)
    return {"metrics": (metric,)}


class FakeEngine:
    """Stands in for `engine.compare`: each model finds the same, moved by as many slices as ran before."""

    def __init__(self, make_result: Callable[[Volume], Segmentation]) -> None:
        self.make_result = make_result
        self.calls: list[tuple[Volume, list[SegmentConfig], Reference | None]] = []
        self.threads: list[threading.Thread] = []
        self.error: Exception | None = None
        self.wait = False
        self.go_on = threading.Event()

    def __call__(
        self, volume: Volume, configs: list[SegmentConfig], reference: Reference | None = None
    ) -> Iterator[CompareEvent]:
        self.calls.append((volume, list(configs), reference))
        self.threads.append(threading.current_thread())
        names = [Path(config.model).stem for config in configs]
        found = []
        for index, name in enumerate(names):
            yield Noted(f"{name}: no T2.")
            yield Started("CPU", "torch")
            result = self.make_result(volume)
            found.append(replace(result, labels=np.roll(result.labels, index, axis=0)))
            yield SlicesDone(index + 1, len(configs))
            yield ModelSegmented(name, found[-1])
            if self.wait:
                assert self.go_on.wait(20)
            if self.error:
                raise self.error
        yield Compared(compare_segmentations(volume, names, found, reference))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, synthetic_segmentation: Any) -> Iterator[FakeEngine]:
    fake = FakeEngine(synthetic_segmentation)
    monkeypatch.setattr(engine, "compare", fake)
    yield fake
    fake.go_on.set()


@pytest.fixture(autouse=True)
def no_bundled_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of the package's own models, so that tests know what is listed."""
    folder = tmp_path / "bundled"
    save_model(
        folder / "shipped.safetensors",
        {"a": torch.zeros(3000)},
        ModelCard(name="shipped", title="Shipped", architecture="u2net", accepts_missing=True, **measured(0.8, 20)),
    )
    monkeypatch.setattr("napari_braintumor.engine.models.store.bundled_folder", lambda: folder)
    return folder


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands in for `engine.exchange`: files are installed under their names."""

    def import_model(
        path: Path, description: ModelCard | None = None, store: Any = None, name: str | None = None
    ) -> StoredModel:
        if path.suffix == ".onnx" and description is None:
            raise DescriptionNeeded("'net.onnx' does not tell its channels.")
        if path.suffix == ".bad":
            raise ModelError("'x.bad' holds no weights. Save the network's state_dict().")
        name = name or (description.name if description else path.stem)
        if any(model.name == name for model in ModelStore().list()):
            raise NameTaken(name)
        if description is None:
            return ModelStore().find(put(name))
        target = ModelStore().folder / f"{name}.safetensors"
        return ModelStore().find(save_model(target, {"a": torch.zeros(3)}, description))

    def export_model(model: StoredModel, kind: str, target: Path) -> Path:
        target.write_text(kind)
        return target

    kinds = {"safetensors": "Model file", "onnx": "ONNX"}
    suffixes = {"safetensors": ".safetensors", "onnx": ".onnx"}
    module = SimpleNamespace(KINDS=kinds, SUFFIXES=suffixes, import_model=import_model, export_model=export_model)
    monkeypatch.setitem(sys.modules, "napari_braintumor.engine.exchange", module)
    return module


@pytest.fixture
def viewer() -> ViewerModel:
    notification_manager.records.clear()
    return ViewerModel()


@pytest.fixture
def dock(qtbot: Any, viewer: ViewerModel, fake: FakeEngine) -> ModelsDock:
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    return dock


def open_case(viewer: ViewerModel, volume: Volume, reference: Reference | None = None) -> list[Layer]:
    return [viewer.add_layer(Layer.create(*layer)) for layer in layers_from_case(volume, reference)]


def finish(qtbot: Any, dock: ModelsDock, timeout_s: float = 10) -> None:
    qtbot.waitUntil(lambda: dock.footer.job is None, timeout=round(timeout_s * 1000))


def rows(dock: ModelsDock) -> dict[str, dict[str, str]]:
    return {node.texts[0]: dict(zip(COLUMNS, node.texts, strict=True)) for node in dock.table.shown}


def choose(dock: ModelsDock, name: str) -> None:
    (path,) = [model.path for model in dock.table.models if model.name == name]
    dock.table.choose(path)


def tick(dock: ModelsDock, *names: str) -> None:
    tree = dock.table.tree
    for node in tree.nodes:
        if node.model.name in names:
            tree.setData(tree.index_of(node), Qt.CheckState.Checked, Qt.ItemDataRole.CheckStateRole)


def answer(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: (name, True))


def compare(qtbot: Any, dock: ModelsDock) -> None:
    assert dock.compare_button.isEnabled(), dock.comparison.check_line.text()
    dock.compare_button.click()
    finish(qtbot, dock)


# ------------------------------------------------------------------------------------------------------- the table


def test_all_models_are_listed_with_their_figures(dock, viewer):
    put("mine", modalities=("FLAIR", "T1"), accepts_missing=False, regions=WHOLE, license="CC0", parent="gone")
    dock.reload_models()
    assert rows(dock)["mine"] == {
        "Model": "mine", "Dice": "", "Network": "U-Net", "Modalities": "FLAIR, T1", "Regions": "whole tumor",
        "License": "CC0", "Size": "0.0 MB", "Kept": "yours", "Parent": "gone",
    }  # fmt: skip
    assert rows(dock)["shipped"]["Dice"] == "0.80 (n = 20)"
    assert rows(dock)["shipped"]["Kept"] == "package"
    assert rows(dock)["shipped"]["Modalities"] == "T1, T1ce, T2, FLAIR or some"


def test_a_damaged_file_is_listed_with_the_reason(dock, models_folder):
    models_folder.mkdir()
    (models_folder / "broken.safetensors").write_bytes(b"nothing")
    dock.reload_models()
    choose(dock, "broken")
    assert "broken (damaged)" in rows(dock)
    assert "'broken.safetensors' is not a model file" in dock.lineage_line.text()
    assert not dock.buttons.export_button.isEnabled()
    assert not dock.buttons.rename_button.isEnabled()
    assert dock.buttons.delete_button.isEnabled()
    dock.table.tick([models_folder / "broken.safetensors"])
    assert dock.table.ticked == []


def test_numbers_are_sorted_as_numbers(dock):
    put("big", size=200_000, **measured(0.9))
    put("small", size=20_000, **measured(0.1))
    dock.reload_models()
    dock.table.sortByColumn(COLUMNS.index("Dice"), Qt.SortOrder.DescendingOrder)
    assert list(rows(dock)) == ["big", "shipped", "small"]
    dock.table.sortByColumn(COLUMNS.index("Size"), Qt.SortOrder.AscendingOrder)
    assert list(rows(dock)) == ["shipped", "small", "big"]


def test_tuned_versions_are_shown_under_their_parent(dock):
    put("tuned", parent="shipped")
    put("tuned-2", parent="tuned")
    put("orphan", parent="gone")
    put("a", parent="b")
    put("b", parent="a")
    dock.reload_models()
    parents = {node.model.name: node.parent and node.parent.model.name for node in dock.table.shown}
    assert parents == {"a": None, "b": None, "orphan": None, "shipped": None, "tuned": "shipped", "tuned-2": "tuned"}


def test_the_origin_of_a_model_is_shown(dock):
    put("tuned", parent="shipped")
    put("tuned-2", parent="tuned")
    put("orphan", parent="gone")
    put("a", parent="b")
    put("b", parent="a")
    models = {model.name: model for model in ModelStore().list()}
    said = {name: describe_lineage(model, list(models.values())) for name, model in models.items()}
    assert said["shipped"] == "Tuned from it: tuned."
    assert said["tuned"] == "Tuned step by step: shipped → tuned. Tuned from it: tuned-2."
    assert said["tuned-2"] == "Tuned step by step: shipped → tuned → tuned-2."
    assert said["orphan"] == "'orphan' was tuned from 'gone', which is not among your models."
    assert said["a"].startswith("Tuned step by step: b → a.")


def test_the_card_opens_and_follows_the_chosen_model(dock):
    put("mine", limitations="Misses small tumors.")
    dock.reload_models()
    assert dock.card_view.toPlainText() == ""
    dock.card_view.part.toggleButton().click()
    choose(dock, "mine")
    assert "Misses small tumors." in dock.card_view.toPlainText()
    choose(dock, "shipped")
    assert "U²-Net" in dock.card_view.toPlainText()


def test_reloading_keeps_the_choice_and_the_ticks(dock):
    put("mine")
    dock.reload_models()
    tick(dock, "mine", "shipped")
    choose(dock, "mine")
    put("another")
    dock.buttons.reload_button.click()
    assert dock.model.name == "mine"
    assert [model.name for model in dock.table.ticked] == ["mine", "shipped"]


# -------------------------------------------------------------------------------------------------------- the store


def test_a_copy_is_made_and_chosen(dock, monkeypatch):
    proposed = []
    choose(dock, "shipped")
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, text: (proposed.append(text), ("my-own", True))[1])
    dock.buttons.duplicate_button.click()
    assert proposed == ["shipped-copy"]
    assert dock.model.name == "my-own"
    assert not dock.model.bundled
    assert dock.message.text() == "'my-own' is a copy of 'shipped'."


def test_a_renamed_model_is_chosen_and_its_children_are_named(dock, monkeypatch):
    put("mine")
    put("tuned", parent="mine")
    dock.reload_models()
    choose(dock, "mine")
    answer(monkeypatch, "better")
    dock.buttons.rename_button.click()
    assert dock.model.name == "better"
    assert dock.message.text() == ("'mine' is now called 'better'. Still naming 'mine' as their parent: tuned.")
    choose(dock, "tuned")
    assert dock.lineage_line.text() == "'tuned' was tuned from 'mine', which is not among your models."


def test_an_impossible_name_is_reported(dock, monkeypatch):
    put("mine")
    dock.reload_models()
    choose(dock, "mine")
    answer(monkeypatch, "shipped")
    dock.buttons.rename_button.click()
    assert dock.message.text().startswith("There is another model 'shipped' already.")
    answer(monkeypatch, "a/b")
    dock.buttons.duplicate_button.click()
    assert dock.message.text().startswith("'a/b' cannot be the name of a model.")
    assert set(rows(dock)) == {"mine", "shipped"}


def test_a_model_of_the_package_can_be_neither_renamed_nor_deleted(dock):
    choose(dock, "shipped")
    assert dock.buttons.duplicate_button.isEnabled()
    assert not dock.buttons.rename_button.isEnabled()
    assert not dock.buttons.delete_button.isEnabled()
    assert "Bundled models cannot be changed" in dock.buttons.delete_button.toolTip()


@pytest.mark.parametrize("sure", [True, False])
def test_deleting_asks_and_says_which_models_were_tuned_from_it(dock, monkeypatch, sure):
    put("mine")
    put("tuned", parent="mine")
    dock.reload_models()
    choose(dock, "mine")
    asked = []

    def question(parent: Any, title: str, text: str) -> Any:
        asked.append(text)
        return QMessageBox.StandardButton.Yes if sure else QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", question)
    dock.buttons.delete_button.click()
    assert "These were tuned from it: tuned. They stay and work, but without their parent." in asked[0]
    assert "Models that ship with the package stay." in asked[0]
    assert ("mine" in rows(dock)) == (not sure)


def test_the_folder_of_the_users_models_is_opened_or_named(dock, monkeypatch, models_folder):
    dock.buttons.folder_button.click()
    assert dock.message.text().startswith(f"Your models will be stored in {models_folder}, which the first one creates")
    opened = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: opened.append(url.toLocalFile()))
    models_folder.mkdir()
    dock.buttons.folder_button.click()
    assert [Path(path) for path in opened] == [models_folder]
    assert dock.message.text() == f"Your models are stored in {models_folder}."  # nothing could open it


def test_a_model_that_is_gone_meanwhile_is_reported_gone(dock, monkeypatch):
    path = put("mine")
    dock.reload_models()
    choose(dock, "mine")
    path.unlink()
    answer(monkeypatch, "new")
    dock.buttons.duplicate_button.click()
    assert "is gone" in dock.message.text()


def test_other_docks_offer_a_new_model_without_a_restart(dock, qtbot, viewer, monkeypatch):
    segment, train = SegmentDock(viewer), TrainDock(viewer)
    for other in (segment, train):
        qtbot.addWidget(other)
    choose(dock, "shipped")
    answer(monkeypatch, "my-own")
    dock.buttons.duplicate_button.click()
    for box in (segment.model_choice.box, train.model.model_box):
        assert "my-own" in " ".join(box.itemText(i) for i in range(box.count()))
    answer(monkeypatch, "renamed")
    dock.buttons.rename_button.click()
    for box in (segment.model_choice.box, train.model.model_box):
        texts = " ".join(box.itemText(i) for i in range(box.count()))
        assert "renamed" in texts
        assert "my-own" not in texts


# ------------------------------------------------------------------------------------------------- the preferences


class Settings(EventedModel):
    folder: str = ""


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    settings = Settings()
    monkeypatch.delenv("BRAINTUMOR_MODELS")
    monkeypatch.setattr("napari.settings.get_plugin_settings", lambda plugin: SimpleNamespace(models=settings))
    monkeypatch.setattr("napari_braintumor.engine.models.store.user_data_path", lambda *_, **__: Path("/nowhere"))
    yield settings
    use_folder(None)


def test_models_lie_where_the_preferences_say_now_and_when_that_changes(settings, qtbot, viewer, tmp_path, fake):
    for name in ("one", "two"):
        card = ModelCard(name=name, architecture="unet")
        save_model(tmp_path / name / f"{name}.safetensors", {"a": torch.zeros(3)}, card)
    settings.folder = str(tmp_path / "one")
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    assert set(rows(dock)) == {"one", "shipped"}
    settings.folder = str(tmp_path / "two")
    assert set(rows(dock)) == {"two", "shipped"}
    settings.folder = " "
    assert set(rows(dock)) == {"shipped"}


def test_another_folder_is_written_into_the_preferences(settings, qtbot, viewer, tmp_path, fake, monkeypatch):
    dock = ModelsDock(viewer)
    qtbot.addWidget(dock)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    dock.buttons.move_button.click()
    assert settings.folder == str(tmp_path)
    assert ModelStore().folder == tmp_path


def test_the_environment_wins_over_the_preferences(dock):
    assert preferences.models_settings() is None
    assert not dock.buttons.move_button.isEnabled()


def test_napari_keeps_the_folder_for_the_next_start(tmp_path, monkeypatch):
    monkeypatch.delenv("BRAINTUMOR_MODELS")
    monkeypatch.setenv("NAPARI_CONFIG", str(tmp_path / "settings.yaml"))
    code = """
import sys
from napari_braintumor.engine.models.store import user_folder
from napari_braintumor.widgets.shared.preferences import follow_preferences, models_settings
follow_preferences()
print(user_folder())
models_settings().folder = sys.argv[1]
print(user_folder())
"""
    said = []
    for folder in ("/some/where", "/else/where"):
        command = [sys.executable, "-c", code, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        said += done.stdout.split()
    assert said[1:] == ["/some/where", "/some/where", "/else/where"]


# --------------------------------------------------------------------------------------------------------- exchange


def test_a_file_is_installed_in_the_background_and_chosen(dock, qtbot, exchange, tmp_path):
    dock.install_from(tmp_path / "new.zip")
    assert not dock.buttons.install_button.isEnabled()
    finish(qtbot, dock)
    assert dock.model.name == "new"
    assert dock.message.text() == "'new' is now among your models."
    assert dock.buttons.install_button.isEnabled()


def test_a_file_that_cannot_be_used_is_reported_in_a_sentence(dock, qtbot, exchange, tmp_path):
    dock.install_from(tmp_path / "x.bad")
    finish(qtbot, dock)
    assert dock.message.text() == "'x.bad' holds no weights. Save the network's state_dict()."
    assert dock.message.details_button.isHidden()


def test_what_a_file_does_not_state_is_asked_for(dock, qtbot, exchange, tmp_path, monkeypatch):
    def fill(form: DescriptionForm) -> bool:
        form.name_edit.setText("net-2")
        form.accept()
        return form.card is not None

    monkeypatch.setattr(DescriptionForm, "exec", fill)
    dock.install_from(tmp_path / "net.onnx")
    qtbot.waitUntil(lambda: dock.footer.job is None and dock.model.name == "net-2", timeout=10000)
    assert dock.model.card.architecture == "onnx"


def test_who_does_not_describe_a_file_does_not_install_it(dock, qtbot, exchange, tmp_path, monkeypatch):
    monkeypatch.setattr(DescriptionForm, "exec", lambda form: False)
    dock.install_from(tmp_path / "net.onnx")
    finish(qtbot, dock)
    assert dock.message.text() == "'net.onnx' was not installed."
    assert "net" not in {model.name for model in ModelStore().list()}


def test_a_model_is_exported_in_the_kind_that_is_chosen(dock, qtbot, exchange, tmp_path, monkeypatch):
    choose(dock, "shipped")
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("ONNX", True))
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "out.onnx"), ""))
    dock.buttons.export_button.click()
    finish(qtbot, dock)
    assert (tmp_path / "out.onnx").read_text() == "onnx"
    assert dock.message.text() == f"Written: {tmp_path / 'out.onnx'}."


@pytest.mark.parametrize("kind", ["safetensors", pytest.param("onnx", marks=pytest.mark.slow)])
def test_a_real_model_travels_out_and_in_again(dock, qtbot, tmp_path, kind):
    card = ModelCard(name="mine", architecture="unet", options={"width": 2}, license="CC0")
    network = build_network("unet", in_channels=4, out_channels=3, options=card.options)
    save_model(ModelStore().folder / "mine.safetensors", network.state_dict(), card)
    dock.reload_models()
    choose(dock, "mine")
    target = tmp_path / f"out{SUFFIXES[kind]}"
    dock.export_to(kind, target)
    finish(qtbot, dock, 120)
    assert dock.message.text() == f"Written: {target}."
    dock.buttons._delete_now(dock.model)
    dock.install_from(target)
    finish(qtbot, dock, 120)
    assert dock.message.text() == "'mine' is now among your models."
    assert dock.model.card.license == "CC0"


@pytest.fixture
def form(qtbot: Any) -> DescriptionForm:
    form = DescriptionForm(None, Path("My net (2).pt"), "'My net (2).pt' does not tell its channels.")
    qtbot.addWidget(form)
    return form


def test_the_form_describes_a_model(form):
    form.architecture_box.setCurrentIndex(form.architecture_box.findData("buda_unet"))
    for _ in range(2):
        form._drop_channel()
    form.modality_boxes[1].setCurrentText("DWI")
    form.region_boxes["enhancing tumor"].setChecked(False)
    form.channel_edits["whole tumor"].setText("1")
    form.channel_edits["tumor core"].setText("0")
    form.options_edit.setText('{"width": 16}')
    form.normalization_box.setCurrentText("percentile z-score")
    form.spacing_spins[1].setValue(1.5)
    card = form.build_card()
    assert card.name == "My-net--2-"
    assert card.modalities == ("T1", "DWI")
    assert [region.name for region in card.regions] == ["whole tumor", "tumor core"]
    assert card.channels == ((1,), (0,))
    assert card.spacing == (None, 1.5, None)
    assert (card.architecture, card.spatial_dims, card.axes) == ("buda_unet", 2, "LPS zyx")
    assert card.normalization == "percentile z-score"
    assert card.options == {"width": 16}


def test_with_softmax_a_region_has_several_channels(form):
    form.activation_box.setCurrentText("softmax")
    for region, text in (("whole tumor", "1, 2,3"), ("tumor core", "1,3"), ("enhancing tumor", "3")):
        form.channel_edits[region].setText(text)
    assert form.build_card().channels == ((1, 2, 3), (1, 3), (3,))


def test_the_form_offers_regions_that_do_not_nest_and_leaves_them_out_unless_asked(form):
    assert list(form.region_boxes) == list(REGION_NAMES)
    assert [region.name for region in form.build_card().regions] == [region.name for region in GLIOMA_REGIONS]
    assert not form.channel_edits["resection cavity"].isEnabled()
    form.region_boxes["resection cavity"].setChecked(True)
    assert form.channel_edits["resection cavity"].isEnabled()
    assert (form.build_card().regions, form.build_card().channels) == (REGIONS, ((0,), (1,), (2,), (3,)))


def test_a_description_that_is_impossible_is_shown_and_the_form_stays(form):
    form.channel_edits["tumor core"].setText("one")
    form.accept()
    assert form.card is None
    assert "The channels of tumor core are 'one'. Expected a number" in form.message.text()
    form.channel_edits["tumor core"].setText("1, 2")
    form.options_edit.setText("width 3")
    form.accept()
    assert "The options are 'width 3'. Expected JSON" in form.message.text()
    form.options_edit.setText('{"width": 3}')
    form.accept()
    assert "with sigmoid each region is one channel" in form.message.text()
    for box in form.region_boxes.values():
        box.setChecked(False)
    form.accept()
    assert "This does not describe a model: regions" in form.message.text()


# --------------------------------------------------------------------------------------------------------- download


ENTRY = Entry(
    name="far", title="From afar", file="far.safetensors", bytes=4_000_000_000, sha256="0" * 64, license="CC0",
    note="Ask first.",
)  # fmt: skip


def test_a_download_shows_its_progress_and_can_be_canceled(dock, qtbot, monkeypatch):
    go_on, left = threading.Event(), threading.Event()

    def download(entry: Entry, store: Any, mirror: Any) -> Iterator[Any]:
        try:
            for done in range(1, 100):
                yield Downloaded(done * 1_000_000, entry.bytes)
                assert go_on.wait(20)
            yield Installed(entry.name, put(entry.name))
        finally:
            left.set()

    monkeypatch.setattr(models_dock, "download", download)
    dock.download_entry(ENTRY)
    qtbot.waitUntil(lambda: dock.footer.progress_line.text() == "1.0 MB of 4000.0 MB", timeout=5000)
    assert dock.footer.progress_bar.maximum() == 4_000_000
    dock.footer.cancel_button.click()
    go_on.set()
    finish(qtbot, dock)
    assert left.is_set()
    assert "far" not in rows(dock)
    assert dock.message.text() == "Canceled."


def test_a_downloaded_model_is_chosen(dock, qtbot, monkeypatch):
    def download(entry: Entry, store: Any, mirror: Any) -> Iterator[Any]:
        yield Noted(f"Tried {mirror}.")
        yield Installed(entry.name, put(entry.name))

    monkeypatch.setattr(models_dock, "download", download)
    monkeypatch.setattr(DownloadForm, "entry", ENTRY)
    monkeypatch.setattr(DownloadForm, "mirror", "/mirror")
    monkeypatch.setattr(DownloadForm, "exec", lambda form: True)
    dock.buttons.download_button.click()
    finish(qtbot, dock)
    assert dock.model.name == "far"


def test_the_download_button_is_hidden_where_the_catalogue_is_empty(dock, qtbot, monkeypatch, tmp_path):
    assert dock.buttons.download_button.isHidden()
    (tmp_path / "catalogue.json").write_text(
        json.dumps({"format": 1, "models": [ENTRY.model_dump(mode="json")]}), encoding="utf-8"
    )
    for catalogue in (str(tmp_path), "https://nowhere/catalogue.json", str(tmp_path / "missing.json")):
        monkeypatch.setenv("BRAINTUMOR_CATALOGUE", catalogue)
        assert offers_models()


def test_the_list_shows_size_and_license_and_is_fetched_only_when_asked(qtbot, monkeypatch):
    asked: list[str | None] = []

    def read(source: str | None) -> list[Entry]:
        asked.append(source)
        if source == "https://nowhere":
            raise ModelError("It cannot be had. Check the address.")
        return [ENTRY] if source else []

    monkeypatch.setattr("napari_braintumor.widgets.models.download.read_catalogue", read)
    form = DownloadForm(None)
    qtbot.addWidget(form)
    assert asked == []
    assert not form.download_button.isEnabled()
    for source in ("", "/folder", "https://nowhere"):
        form.source_edit.setText(source)
        form.reload()
        qtbot.waitUntil(lambda: form._job is None, timeout=5000)
        if source == "":
            assert form.line.text().startswith("This catalogue lists no models.")
        elif source == "/folder":
            assert form.table.rows[0][:3] == ["far", "4000.0 MB", "CC0"]
            assert form.line.text() == "far: 4000.0 MB, safetensors, license CC0. Ask first."
            assert form.entry == ENTRY
        else:
            assert form.line.text() == "It cannot be had. Check the address."
            assert form.entry is None
    assert asked == [None, "/folder", "https://nowhere"]


# -------------------------------------------------------------------------------------------------------- comparing


@pytest.fixture
def two(dock: ModelsDock) -> ModelsDock:
    put("mine")
    put("other")
    dock.reload_models()
    tick(dock, "mine", "shipped")
    return dock


def test_what_is_missing_for_a_comparison_is_named(dock, viewer, volume, synthetic_volume):
    assert dock.comparison.check_line.text().startswith("Not ready: No image is chosen.")
    open_case(viewer, synthetic_volume(("T1",)))
    assert (
        dock.comparison.check_line.text()
        == "Not ready: 0 models are ticked. Tick two or more to compare them on patient7."
    )
    put("needy", accepts_missing=False)
    dock.reload_models()
    tick(dock, "needy", "shipped")
    assert dock.comparison.check_line.text() == (
        "Not ready: 'needy' needs T1ce, T2, FLAIR too. Open it, or untick the model."
    )
    assert not dock.compare_button.isEnabled()
    open_case(viewer, volume)
    assert dock.comparison.check_line.text() == "Ready: 2 models on patient7, T1, T1ce, T2, FLAIR."
    assert dock.compare_button.isEnabled()


def test_the_case_of_the_selected_layer_is_taken(two, viewer, volume, synthetic_volume):
    first = open_case(viewer, volume)
    open_case(viewer, synthetic_volume(name="patient8"))
    assert "on patient8" in two.comparison.check_line.text()
    viewer.layers.selection.active = first[0]
    assert "on patient7" in two.comparison.check_line.text()


def test_each_model_gets_a_layer_of_its_own_and_there_is_one_of_disagreement(two, viewer, volume, fake, qtbot):
    scans = open_case(viewer, volume)
    compare(qtbot, two)
    names = ["Tumor [patient7] by mine", "Tumor [patient7] by shipped", "Disagreement [patient7]"]
    assert [layer.name for layer in viewer.layers[len(scans) :]] == names
    assert [layer.visible for layer in viewer.layers[len(scans) :]] == [True, False, True]
    one, two_, differ = (viewer.layers[name].data for name in names)
    np.testing.assert_array_equal(differ > 0, one != two_)
    assert fake.threads[0] is not threading.main_thread()
    assert [config.model for config in fake.calls[0][1]] == [str(model.path) for model in two.table.ticked]
    assert fake.calls[0][2] is None
    compare(qtbot, two)
    assert len(viewer.layers) == len(scans) + 3


def test_a_models_row_shows_its_layer_alone(two, viewer, volume, qtbot):
    open_case(viewer, volume)
    compare(qtbot, two)
    two.comparison.figures.view.selectRow(1)
    shown = [layer.name for layer in viewer.layers if isinstance(layer, Labels) and layer.visible]
    assert shown == ["Tumor [patient7] by shipped", "Disagreement [patient7]"]
    viewer.layers.remove("Tumor [patient7] by mine")
    two.comparison.figures.view.selectRow(0)  # no layer is left to be shown


def test_the_reference_of_the_case_is_found_and_another_can_be_picked(two, viewer, volume, segmentation, qtbot, fake):
    reference = Reference({"whole tumor": segmentation.labels > 0}, "whole", volume.source)
    open_case(viewer, volume, reference)
    assert two.comparison.reference_slot.currentText() == "Reference [patient7]"
    compare(qtbot, two)
    assert list(fake.calls[0][2].regions) == ["whole tumor"]
    np.testing.assert_array_equal(fake.calls[0][2].regions["whole tumor"], segmentation.labels > 0)
    drawn = viewer.add_labels(segmentation.labels, name="by hand", scale=volume.spacing)
    two.comparison.reference_slot.setCurrentIndex(two.comparison.reference_slot.findText("by hand"))
    two.comparison.reference_slot.activated.emit(two.comparison.reference_slot.currentIndex())
    viewer.add_image(np.zeros((4, 4)), name="unrelated")
    assert two.comparison.reference_slot.layer is drawn
    drawn.translate = viewer.layers[0].translate
    compare(qtbot, two)
    assert "may mean different things" in two.message.text()  # 1, 2 and 3 are numbers of several conventions
    two.comparison.meaning_box.setCurrentText("1 necrosis, 2 edema, 3 enhancing (BraTS 2023)")
    compare(qtbot, two)
    assert len(fake.calls[1][2].regions) == 3


def test_no_reference_may_be_wanted(two, viewer, volume, segmentation, qtbot, fake):
    open_case(viewer, volume, Reference({"whole tumor": segmentation.labels > 0}, "whole", volume.source))
    two.comparison.reference_slot.setCurrentIndex(0)
    two.comparison.reference_slot.activated.emit(0)
    compare(qtbot, two)
    assert fake.calls[0][2] is None


def test_labels_of_another_scan_are_refused_as_a_reference(two, viewer, volume, fake):
    open_case(viewer, volume)
    viewer.add_labels(np.ones((2, 3, 4), int), name="elsewhere")
    two.comparison.reference_slot.setCurrentIndex(two.comparison.reference_slot.findText("elsewhere"))
    two.comparison.reference_slot.activated.emit(two.comparison.reference_slot.currentIndex())
    two.compare_button.click()
    assert "do not lie on the scans" in two.message.text()
    assert fake.calls == []


def test_the_table_shows_volumes_dice_and_distances(two, viewer, volume, segmentation, qtbot):
    reference = Reference({"whole tumor": segmentation.labels > 0}, "whole", volume.source)
    open_case(viewer, volume, reference)
    compare(qtbot, two)
    table = two.comparison.figures.table
    assert table.header == ["Region", "Model", "mL", "Dice ref.", "HD95 mm", "Dice 1", "Dice 2"]
    assert table.rows[:4] == [
        ["whole tumor", "1 mine", "0.18", "1.000", "0.0", "", "0.500"],
        ["whole tumor", "2 shipped", "0.18", "0.500", "3.0", "0.500", ""],
        ["whole tumor", "reference", "0.18", "", "", "", ""],
        ["tumor core", "1 mine", "0.05", "", "", "", "0.500"],
    ]
    assert "1 mine (2 s), 2 shipped (2 s). Where they disagree: 0.2 mL." in two.comparison.figures.headline.text()


def test_the_table_is_copied_for_a_spreadsheet(two, viewer, volume, qtbot):
    open_case(viewer, volume)
    compare(qtbot, two)
    two.comparison.figures.copy_button.click()
    lines = QApplication.clipboard().text().splitlines()
    assert lines[0].split("\t") == ["Region", "Model", "mL", "Dice with mine", "Dice with shipped"]
    assert lines[1].split("\t") == ["whole tumor", "mine", "0.18", "", "0.500"]
    assert len(lines) == 7


def test_a_region_that_a_model_does_not_know_has_no_row(volume, segmentation):
    less = replace(segmentation, regions={"whole tumor": (2,)}, label_names={2: "edema"}, label_colors={2: "#4fae5b"})
    said = compare_segmentations(volume, ("all", "some"), [segmentation, less])
    _, cells = tabulate(said)
    assert [row[:2] for row in cells] == [
        ["whole tumor", "all"], ["whole tumor", "some"], ["tumor core", "all"], ["enhancing tumor", "all"],
    ]  # fmt: skip
    assert comparison_as_tsv(said).splitlines()[3].split("\t")[3:] == ["", ""]


def test_progress_counts_over_all_models_and_canceling_keeps_what_was_found(two, viewer, volume, fake, qtbot):
    fake.wait = True
    open_case(viewer, volume)
    two.compare_button.click()
    qtbot.waitUntil(lambda: "Tumor [patient7] by mine" in viewer.layers, timeout=5000)
    assert two.footer.progress_line.text() == "1 of 2 slices of all models"
    assert two.compare_button.isHidden()
    assert not two.buttons.delete_button.isEnabled()
    two.footer.cancel_button.click()
    fake.go_on.set()
    finish(qtbot, two)
    assert two.message.text() == "Canceled. Results found before stay."
    assert "Tumor [patient7] by mine" in viewer.layers
    assert "Disagreement [patient7]" not in viewer.layers
    assert two.compare_button.isEnabled()


def test_deleting_the_layers_during_a_comparison_leaves_the_results(two, viewer, volume, fake, qtbot):
    fake.wait = True
    open_case(viewer, volume)
    two.compare_button.click()
    qtbot.waitUntil(lambda: "Tumor [patient7] by mine" in viewer.layers, timeout=5000)
    viewer.layers.clear()
    fake.go_on.set()
    finish(qtbot, two)
    assert [layer.name for layer in viewer.layers] == ["Tumor [patient7] by shipped", "Disagreement [patient7]"]


def test_closing_the_dock_during_a_comparison_stops_it(qtbot, viewer, volume, fake):
    put("mine")
    dock = ModelsDock(viewer)
    tick(dock, "mine", "shipped")
    fake.wait = True
    open_case(viewer, volume)
    dock.compare_button.click()
    qtbot.waitUntil(lambda: "Tumor [patient7] by mine" in viewer.layers, timeout=5000)
    worker = dock.footer.job._worker
    dock.deleteLater()
    with qtbot.waitSignal(dock.destroyed):
        pass
    fake.go_on.set()
    qtbot.waitUntil(lambda: not worker.is_running)
    viewer.add_image(np.zeros((3, 4, 5)), name="later")  # nobody listens any more
    preferences.MODELS.changed.emit()
    assert "Disagreement [patient7]" not in viewer.layers
    assert not notification_manager.records


def test_a_bug_says_where_it_arose(two, viewer, volume, fake, qtbot, caplog):
    fake.error = ZeroDivisionError("by zero")
    open_case(viewer, volume)
    compare(qtbot, two)
    assert "ZeroDivisionError" in two.message.text()
    two.message.details_button.click()
    assert "line" in QApplication.clipboard().text()


# ------------------------------------------------------------------------------------------------------ form's form


def test_every_control_has_a_name_and_a_tooltip(dock, form, qtbot):
    download = DownloadForm(None)
    qtbot.addWidget(download)
    for widget in (dock, form, download):
        controls = [w for kind in (QPushButton, QComboBox, QCheckBox) for w in widget.findChildren(kind)]
        assert not [w for w in controls if not (w.accessibleName() or w.text())]
        assert not [w.accessibleName() for w in controls if not w.toolTip() and w.accessibleName()]


def test_the_dock_fits_into_300_pixels(two, viewer, synthetic_volume, qtbot):
    put("a-very-long-name-of-a-model-" + "x" * 40)
    two.reload_models()
    open_case(viewer, synthetic_volume(name="a-very-long-name-of-a-patient-" * 4))
    compare(qtbot, two)
    two.resize(300, 700)
    assert two.minimumSizeHint().width() <= 300
    assert two.scroll_area.widget().minimumSizeHint().width() <= 290


def test_colors_come_from_the_theme(dock):
    assert all("color" not in widget.styleSheet() for widget in dock.findChildren(QLabel))


def test_a_renamed_file_keeps_its_card(dock, monkeypatch):
    put("mine", license="CC0")
    dock.reload_models()
    choose(dock, "mine")
    answer(monkeypatch, "better")
    dock.buttons.rename_button.click()
    assert read_card(dock.model.path).license == "CC0"


def test_a_file_whose_name_is_taken_is_installed_under_another_name(dock, exchange, monkeypatch, qtbot):
    put("net")
    dock.reload_models()
    asked: list[tuple[str, str]] = []

    def answer(_: Any, title: str, question: str, text: str) -> tuple[str, bool]:
        asked.append((question, text))
        return "net" if len(asked) == 1 else "other", True

    monkeypatch.setattr(QInputDialog, "getText", answer)
    dock.install_from(Path("net.pt"))
    qtbot.waitUntil(lambda: "other" in rows(dock), timeout=10_000)
    assert len(asked) == 2  # the first answer was taken too
    assert asked[0][0].startswith("There is another model 'net' already.")
    assert asked[0][1] == "net-copy"
    assert dock.message.text() == "'other' is now among your models."


def test_a_file_whose_name_is_taken_stays_where_it_is_if_nobody_names_it(dock, exchange, monkeypatch, qtbot):
    put("net")
    dock.reload_models()
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: ("", False))
    dock.install_from(Path("net.pt"))
    qtbot.waitUntil(lambda: dock.message.text() == "'net.pt' was not installed.", timeout=10_000)
    assert set(rows(dock)) == {"shipped", "net"}
