"""Rows of a form made from the fields of a config: the description is the tooltip, the default is the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from qtpy.QtCore import Qt, Signal  # type: ignore[attr-defined]
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QWidget

SPIN_WIDTH_PX = 118
"""Room for seven digits between a spin box's two buttons."""


@dataclass(frozen=True)
class Row:
    """How a field is shown.

    Attributes
    ----------
    label
        Before the editor, or on it.
    empty
        For numbers that may be left out: what is written then.
    low, high, step
        For numbers. One step below `low` stands for left out.
    decimals
        For numbers; 0 makes whole numbers.
    """

    label: str
    empty: str = ""
    low: float = 0.0
    high: float = 1.0
    step: float = 0.1
    decimals: int = 2


class SettingsForm(QWidget):
    """A form for some fields of a config.

    Parameters
    ----------
    config
        The pydantic class.
    rows
        For each field that is shown how.
    """

    changed = Signal()
    """Another value was chosen."""

    def __init__(self, config: type[BaseModel], rows: dict[str, Row]) -> None:
        super().__init__()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.editors: dict[str, QWidget] = {}
        for name, row in rows.items():
            field = config.model_fields[name]
            editor = _make_editor(row, field.annotation, field.default)
            editor.setToolTip(field.description or "")
            editor.setAccessibleName(row.label)
            self.editors[name] = editor
            if isinstance(editor, QCheckBox):
                editor.toggled.connect(lambda _: self.changed.emit())
                form.addRow(editor)
            elif isinstance(editor, QComboBox):
                editor.currentIndexChanged.connect(lambda _: self.changed.emit())
                form.addRow(row.label, editor)
            else:
                assert isinstance(editor, QDoubleSpinBox)
                editor.valueChanged.connect(lambda _: self.changed.emit())
                form.addRow(row.label, editor)

    def set_values(self, values: dict[str, Any]) -> None:
        """Show other values; None where a number is left out."""
        for name, value in values.items():
            editor = self.editors[name]
            if isinstance(editor, QCheckBox):
                editor.setChecked(bool(value))
            elif isinstance(editor, QComboBox):
                editor.setCurrentText(str(value))
            else:
                assert isinstance(editor, QDoubleSpinBox)
                editor.setValue(editor.minimum() if value is None else float(value))

    def values(self) -> dict[str, Any]:
        """Return what the user has chosen, by field; None where a number is left out."""
        return {name: _read_editor(editor) for name, editor in self.editors.items()}


class _Spin(QDoubleSpinBox):
    """A number that shows no more zeros than it has."""

    def textFromValue(self, value: float) -> str:
        return f"{value:.{self.decimals()}f}".rstrip("0").rstrip(".") if self.decimals() else f"{value:.0f}"


def _make_editor(row: Row, annotation: Any, default: Any) -> QWidget:
    if isinstance(default, bool):
        check = QCheckBox(row.label)
        check.setChecked(default)
        return check
    if isinstance(default, str):
        combo = QComboBox()
        combo.addItems([str(choice) for choice in get_args(annotation)])
        combo.setCurrentText(default)
        return combo
    spin = _Spin()
    spin.setMinimumWidth(SPIN_WIDTH_PX)
    spin.setDecimals(row.decimals)
    spin.setSingleStep(row.step)
    spin.setRange(row.low - row.step if row.empty else row.low, row.high)
    spin.setSpecialValueText(row.empty)
    spin.setValue(spin.minimum() if default is None else default)
    spin.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return spin


def _read_editor(editor: QWidget) -> Any:
    if isinstance(editor, QCheckBox):
        return editor.isChecked()
    if isinstance(editor, QComboBox):
        return editor.currentText()
    assert isinstance(editor, QDoubleSpinBox)
    if editor.specialValueText() and editor.value() == editor.minimum():
        return None
    return int(editor.value()) if editor.decimals() == 0 else editor.value()
