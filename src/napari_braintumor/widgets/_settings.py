"""Rows of a form made from the fields of a config: the description is the tooltip, the default is the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QWidget


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
                form.addRow(editor)
            else:
                form.addRow(row.label, editor)

    def values(self) -> dict[str, Any]:
        """Return what the user has chosen, by field; None where a number is left out."""
        return {name: _read_editor(editor) for name, editor in self.editors.items()}


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
    spin = QDoubleSpinBox()
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
