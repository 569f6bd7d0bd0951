"""Forms take from a pydantic model what it says: defaults, bounds, choices, tooltips."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from magicgui.widgets import ComboBox
from magicgui.widgets.bases import RangedWidget
from pydantic import BaseModel, Field, ValidationError
from qtpy.QtCore import Qt

from napari_braintumor.engine.settings import SegmentConfig
from napari_braintumor.engine.training.plan import FineTuning, TrainPlan
from napari_braintumor.widgets.segmenting import dock as segment_dock
from napari_braintumor.widgets.shared.forms import SettingsForm
from napari_braintumor.widgets.shared.parts import make_collapsible
from napari_braintumor.widgets.training import model_tab, run_tab

FORMS = {
    "segmenting": (SegmentConfig, segment_dock.ADVANCED, {}),
    "training, every day": (TrainPlan, run_tab.EVERYDAY, {"name": "a", "cases": ("b",)}),
    "training, advanced": (TrainPlan, run_tab.ADVANCED, {"name": "a", "cases": ("b",)}),
    "fine-tuning": (FineTuning, model_tab.TUNING, {}),
}
EDITORS = [(form, name) for form, (_, rows, _) in FORMS.items() for name in rows]


class Toy(BaseModel):
    """A field of each kind."""

    share: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="How much.")
    limit: Annotated[float, Field(ge=0, le=9)] | None = None
    count: Annotated[int, Field(ge=1, le=7)] | None = None
    mode: Literal["slow", "fast"] = "fast"
    sure: bool = True


@pytest.fixture
def toy(qtbot: Any) -> SettingsForm:
    rows = {"share": {"label": "Share", "step": 0.1}, "limit": {"empty": "no limit", "step": 0.5}, "count": {}}
    form = SettingsForm(Toy, {**rows, "mode": {"label": "Mode"}, "sure": {"label": "Be sure"}})
    qtbot.addWidget(form)
    return form


def type_text(qtbot: Any, editor: Any, text: str) -> None:
    """Write into a spin box as the user does, key by key."""
    editor.native.selectAll()
    qtbot.keyClicks(editor.native, text)
    qtbot.keyClick(editor.native, Qt.Key.Key_Return)


@pytest.mark.parametrize("name", FORMS)
def test_a_form_starts_at_the_defaults_of_its_model(name: str, qtbot: Any) -> None:
    model, rows, needed = FORMS[name]
    form = SettingsForm(model, rows)
    qtbot.addWidget(form)
    defaults = model(**needed)
    assert form.values() == {field: getattr(defaults, field) for field in rows}
    assert model(**needed, **form.values()) == defaults


@pytest.mark.parametrize(("name", "field"), EDITORS)
def test_whatever_an_editor_offers_its_model_takes(name: str, field: str, qtbot: Any) -> None:
    model, rows, needed = FORMS[name]
    form = SettingsForm(model, rows)
    qtbot.addWidget(form)
    editor = form.editors[field]
    assert editor.tooltip == model.model_fields[field].description
    assert editor.native.accessibleName()
    if isinstance(editor, ComboBox):
        assert editor.choices == get_args(model.model_fields[field].annotation)
    if isinstance(editor, RangedWidget):
        for text in ("-999999999", "999999999999"):
            type_text(qtbot, editor, text)
            assert model(**needed, **form.values()) is not None
        for end in (editor.native.minimum(), editor.native.maximum()):
            editor.native.setValue(end)
            assert model(**needed, **form.values()) is not None


@pytest.mark.parametrize(("name", "field"), EDITORS)
def test_an_editor_reaches_the_bounds_of_its_model(name: str, field: str, qtbot: Any) -> None:
    model, rows, needed = FORMS[name]
    form = SettingsForm(model, rows)
    qtbot.addWidget(form)
    editor = form.editors[field]
    if not isinstance(editor, RangedWidget):
        return
    editor.native.setValue(editor.native.maximum())
    beyond = editor.value + 10.0 ** -getattr(editor.native, "decimals", lambda: 0)()
    with pytest.raises(ValidationError):
        model(**needed, **{field: beyond})


def test_a_number_out_of_bounds_cannot_be_typed(toy: SettingsForm, qtbot: Any) -> None:
    for text, kept in (("0", 0.01), ("0.25", 0.25), ("-3", 0.01), ("1", 0.99)):
        type_text(qtbot, toy.editors["share"], text)
        assert 0 < toy.editors["share"].value < 1
        if text == "0.25":
            assert toy.editors["share"].value == kept
    with pytest.raises(ValueError, match="outside of the allowed range"):
        toy.editors["share"].value = 2


def test_a_number_that_may_be_left_out_says_so_one_step_below_the_least(toy: SettingsForm, qtbot: Any) -> None:
    limit = toy.editors["limit"]
    assert limit.value is None
    assert limit.native.text() == "no limit"
    limit.native.stepUp()
    assert limit.value == 0
    limit.native.setValue(-0.2)  # lies between left out and the least
    assert limit.value == 0
    limit.native.stepDown()
    assert limit.value is None
    toy.editors["count"].native.stepUp()
    assert toy.editors["count"].value == 1
    assert isinstance(toy.editors["count"].value, int)


def test_values_are_shown_and_left_out_together_and_said_once(toy: SettingsForm) -> None:
    changes: list[object] = []
    toy.changed.connect(lambda: changes.append(toy.values()))
    toy.set_values({"share": 0.2, "limit": None, "count": 3, "mode": "slow", "sure": False})
    assert toy.values() == {"share": 0.2, "limit": None, "count": 3, "mode": "slow", "sure": False}
    assert len(changes) == 1


def test_rows_are_reached_by_keyboard_from_top_to_bottom(toy: SettingsForm, qtbot: Any) -> None:
    toy.show()
    qtbot.waitExposed(toy)
    editors = [editor.native for editor in toy.editors.values()]
    assert all(editor.focusPolicy() & Qt.FocusPolicy.TabFocus for editor in editors)
    toy.editors["share"].native.setFocus()
    seen, widget = [], editors[0]
    for _ in range(40):
        if widget in editors and widget not in seen:
            seen.append(widget)
        widget = widget.nextInFocusChain()
    assert seen == editors


def test_all_editors_have_room_in_a_narrow_dock(qtbot: Any) -> None:
    for model, rows, _ in FORMS.values():
        form = SettingsForm(model, rows)
        qtbot.addWidget(form)
        assert form.minimumSizeHint().width() <= 250


def test_a_fine_tuning_is_as_its_form_says(qtbot: Any, tmp_path: Path) -> None:
    page = model_tab.ModelPage()
    qtbot.addWidget(page)
    assert page.tuning() == FineTuning()
    page.tuning_form.editors["frozen_stages"].value = 4
    page.replay_edit.setText(str(tmp_path))
    assert page.tuning() == FineTuning(frozen_stages=4, replay=(tmp_path,))


@pytest.mark.parametrize(("width_px", "above"), [(190, True), (400, False)])
def test_labels_stand_above_their_editors_in_a_narrow_dock_and_all_rows_are_seen_whole(
    qtbot: Any, width_px: int, above: bool
) -> None:
    form = SettingsForm(TrainPlan, run_tab.ADVANCED)
    part = make_collapsible("Advanced", form)
    qtbot.addWidget(part)
    part.resize(300, 2000)
    part.show()
    part.expand(animate=False)
    qtbot.waitExposed(part)
    part.resize(width_px, 2000)
    editors = [editor.native for editor in form.editors.values()]
    qtbot.waitUntil(lambda: all((editor.x() == 0) == above for editor in editors))
    qtbot.waitUntil(lambda: all(editor.height() >= editor.minimumSizeHint().height() for editor in editors))
    assert all(editor.geometry().right() < form.width() for editor in editors)
