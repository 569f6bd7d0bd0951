"""Forms made from the fields of a pydantic model: magicgui chooses the editors, the fields say the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypedDict, get_args, get_origin

from magicgui.backends._qtpy.widgets import QBaseRangedWidget
from magicgui.widgets import CheckBox, create_widget
from magicgui.widgets.bases import RangedWidget, ValueWidget
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from qtpy.QtCore import QSize, Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QDoubleSpinBox, QFormLayout, QLabel, QSizePolicy, QWidget

NUMBER_WIDTH_PX = 90
"""Room for a few digits and the two buttons of a spin box: no more, as docks may be narrow."""

CHOICE_LETTERS = 5
"""Of a choice that are always in sight; more, where there is room."""


class Row(TypedDict, total=False):
    """What a field does not say of its row.

    Attributes
    ----------
    label
        Before the editor, or on it.
    step
        Of a number; left out, 1, or a tenth of a number that is not whole.
    decimals
        Of a number that is not whole; left out, two.
    empty
        The text shown if a number is left out.
    """

    label: str
    step: float
    decimals: int
    empty: str


class SettingsForm(QWidget):
    """A form for some fields of a model. It starts at their defaults and takes only values within their bounds.

    Parameters
    ----------
    model
        The pydantic class.
    rows
        The fields that are shown, and how.

    Attributes
    ----------
    editors
        For each field its widget of magicgui.
    """

    changed = Signal()
    """Another value was chosen."""

    def __init__(self, model: type[BaseModel], rows: Mapping[str, Row]) -> None:
        super().__init__()
        self.setStyleSheet(f"QAbstractSpinBox {{ min-width: {NUMBER_WIDTH_PX}px }}")
        self.editors = {name: make_editor(name, model.model_fields[name], row) for name, row in rows.items()}
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for editor in self.editors.values():
            editor.changed.connect(self._announce)
            if isinstance(editor, CheckBox):  # which bears its label itself
                self._form.addRow(editor.native)
            else:
                self._form.addRow(editor.label, editor.native)

    def set_values(self, values: Mapping[str, Any]) -> None:
        """Show other values; None where a number is left out."""
        blocked = self.blockSignals(True)
        for name, value in values.items():
            self.editors[name].value = value
        self.blockSignals(blocked)
        self.changed.emit()

    def values(self) -> dict[str, Any]:
        """Return the values, by field; None where a number is left out."""
        return {name: editor.value for name, editor in self.editors.items()}

    def minimumSizeHint(self) -> QSize:
        """Return the width of the widest label or editor: labels stand above editors where there is little room."""
        return QSize(max(self._measure(QWidget)), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put labels next to editors if there is room, else above them."""
        super().resizeEvent(event)
        beside = sum(self._measure(QAbstractSpinBox, QComboBox)) + self._form.horizontalSpacing() <= self.width()
        policy = QFormLayout.RowWrapPolicy
        self._form.setRowWrapPolicy(policy.DontWrapRows if beside else policy.WrapAllRows)

    def _measure(self, *kinds: type[QWidget]) -> tuple[int, int]:
        """Return how wide the labels, and the editors of some kinds, are at least."""
        natives = [editor.native for editor in self.editors.values() if isinstance(editor.native, kinds)]
        widths = [native.minimumWidth() or native.minimumSizeHint().width() for native in natives]
        labels = [label.sizeHint().width() for label in self.findChildren(QLabel)]
        return max(labels, default=0), max(widths, default=0)

    def _announce(self) -> None:
        self.changed.emit()


class _ShortSpin(QDoubleSpinBox):
    """A number that shows no more zeros than it has: where a dock is narrow there is no room for them."""

    def textFromValue(self, value: float) -> str:
        text = super().textFromValue(value)
        return text.rstrip("0").rstrip(".,") if self.decimals() else text


class _NumberBackend(QBaseRangedWidget):
    def __init__(self, **options: Any) -> None:
        super().__init__(_ShortSpin, **options)


class Number(RangedWidget[float]):
    """A number within bounds that is not whole, or that may be left out.

    Parameters
    ----------
    value
        The number, None where it is left out.
    low, high
        The least and the greatest that it may be.
    step
        Between two numbers.
    decimals
        As many are kept; 0 makes whole numbers.
    empty
        The text shown if it is left out, which the multiple of `step` next below `low` stands for; without it a
        number must be given.
    **options
        As for any widget of magicgui.
    """

    def __init__(
        self,
        *,
        value: float | None,
        low: float,
        high: float,
        step: float,
        decimals: int,
        empty: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**{**options, "widget_type": _NumberBackend, "step": step})
        self._low, self._optional = low, bool(empty)
        self.native.setDecimals(decimals)
        self.native.setSpecialValueText(empty)
        self.range = (math.floor((low - 10.0**-decimals) / step) * step if empty else low), high
        self.changed.connect(self._leave_gap)
        self.set_value(value)

    def get_value(self) -> Any:
        """Return the number, None where it is left out."""
        number = float(super().get_value())
        if self._optional and number < self._low:
            return None
        return number if self.native.decimals() else int(number)

    def set_value(self, value: float | None) -> None:
        """Show another number, or leave it out."""
        super().set_value(self.min if value is None else value)

    def _leave_gap(self) -> None:
        """Take the least number where less was typed that does not stand for a number left out."""
        if self.min < self.native.value() < self._low:
            self.native.setValue(self._low)


def make_editor(name: str, field: FieldInfo, row: Row) -> ValueWidget[Any]:
    """Return an editor of a field, with its default, bounds or choices, and its description as tooltip."""
    kind, limits, optional = _read_annotation(field)
    options: dict[str, Any] = {"tooltip": field.description}
    if kind is float or optional:
        decimals = row.get("decimals", 2) if kind is float else 0
        low, high = _find_bounds(limits, 10.0**-decimals)
        options |= {"widget_type": Number, "low": low, "high": high, "decimals": decimals}
        options |= {"step": row.get("step", 0.1 if decimals else 1)}
        options |= {"empty": row.get("empty", "none")} if optional else {}
    elif kind is int:
        low, high = _find_bounds(limits, 1)
        options |= {"min": int(low), "max": int(high), "step": row.get("step", 1)}
    editor = create_widget(field.default, kind, name, label=row.get("label"), options=options)
    assert isinstance(editor, ValueWidget)
    native: QWidget = editor.native
    native.setAccessibleName(editor.label)
    if isinstance(editor, RangedWidget):
        native.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    elif isinstance(native, QComboBox):
        native.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        native.setMinimumContentsLength(CHOICE_LETTERS)
        native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return editor


def _read_annotation(field: FieldInfo) -> tuple[Any, list[Any], bool]:
    """Return a field's type without its limits, the limits, and whether it may be left out."""
    members = get_args(field.annotation)
    if type(None) not in members:
        return field.annotation, field.metadata, False
    (kind,) = (member for member in members if member is not type(None))
    if get_origin(kind) is not Annotated:
        return kind, [], True
    kind, *limits = get_args(kind)
    return kind, [limit for each in limits for limit in getattr(each, "metadata", (each,))], True


def _find_bounds(limits: Iterable[Any], finest: float) -> tuple[float, float]:
    """Return the least and the greatest number that limits such as ``gt`` and ``le`` allow, on a grid of `finest`."""
    lows = [limit.ge for limit in limits if hasattr(limit, "ge")]
    lows += [limit.gt + finest for limit in limits if hasattr(limit, "gt")]
    highs = [limit.le for limit in limits if hasattr(limit, "le")]
    highs += [limit.lt - finest for limit in limits if hasattr(limit, "lt")]
    return max(lows), min(highs)
