from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from qtpy.QtCore import Qt

from napari_braintumor.engine.files.choosing_series.rows import NO_MODALITY, SeriesRow, judge_series
from napari_braintumor.engine.files.series import Series
from napari_braintumor.engine.grid import default_grid
from napari_braintumor.widgets.segmenting.series_table import (
    DATE,
    NAME,
    PLANE,
    SHOWS,
    USE,
    VOXELS,
    WHY,
    SeriesTable,
    SeriesView,
    explain_row,
)

GRID = default_grid((24, 64, 64), (5.0, 0.9, 0.9), format="dicom")


def series(number: int, description: str, **more) -> Series:
    return Series(
        (Path(f"{number}.dcm"),), "dicom", key=f"key{number}", patient="p", date="2024-02-29", number=number,
        description=description, slices=24, **{"grid": GRID, **more},
    )  # fmt: skip


@pytest.fixture
def rows() -> tuple[SeriesRow, ...]:
    return judge_series(
        [
            series(1, "localizer"),
            series(2, "AX T1"),
            series(3, "AX FLAIR"),
            series(4, "SAG T1", grid=default_grid((64, 64, 24), (0.9, 0.9, 5.0), format="dicom")),
            series(5, "images", echo_time_ms=90.0, repetition_time_ms=4000.0),
            series(6, "report", kind="SR", grid=None, problem="Series 6 is a report, not a scan."),
        ]
    )


@pytest.fixture
def view(qtbot, rows) -> SeriesView:
    view = SeriesView()
    qtbot.addWidget(view)
    view.show_rows(rows, "six series")
    return view


def texts(table: SeriesTable, column: int) -> list[str]:
    return [table.data(table.index(row, column)) for row in range(table.rowCount())]


def test_each_series_is_a_row_with_what_it_shows_and_whether_it_is_used(rows):
    table = SeriesTable()
    table.fill(rows)
    assert texts(table, USE) == ["not used", "T1", "FLAIR", "not used", "T2", "not used"]
    assert texts(table, NAME) == ["1 localizer", "2 AX T1", "3 AX FLAIR", "4 SAG T1", "5 images", "6 report"]
    assert texts(table, SHOWS) == ["a scout", "T1", "FLAIR", "T1", "T2?", "a report"]
    assert texts(table, PLANE)[:2] == ["axial", "axial"]
    assert texts(table, VOXELS)[0] == "5 x 0.9 x 0.9"
    assert set(texts(table, DATE)) == {"2024-02-29"}


def test_the_tooltip_says_why(rows):
    table = SeriesTable()
    table.fill(rows)
    tips = [table.data(table.index(row, SHOWS), Qt.ItemDataRole.ToolTipRole) for row in range(len(rows))]
    assert "the description says T1" in tips[1]
    assert "Not used: series 2 'AX T1'" in tips[3]
    assert "This is not certain" in tips[4]
    assert "a report" in tips[5]


def test_the_reasons_are_in_the_table_too_where_no_mouse_is_needed(rows):
    table = SeriesTable()
    table.fill(rows)
    reasons = texts(table, WHY)
    assert "the description says T1" in reasons[1]
    assert reasons[3].startswith("series 2 'AX T1'")
    assert reasons[4] == rows[4].reason != ""


def test_used_series_are_bold(rows):
    table = SeriesTable()
    table.fill(rows)
    bold = [table.data(table.index(row, NAME), Qt.ItemDataRole.FontRole) is not None for row in range(len(rows))]
    assert bold == [row.used for row in rows]


def test_only_series_that_may_be_scans_have_a_box(view, rows):
    assert [view.box_of(row.key) is not None for row in rows] == [False, True, True, True, True, False]


@pytest.mark.parametrize(("chosen", "asked"), [("T1ce", "T1ce"), ("not used", NO_MODALITY)])
def test_a_box_asks_for_another_use_of_its_series(view, chosen, asked):
    asked_for = []
    view.changed.connect(lambda *each: asked_for.append(each))
    box = view.box_of("key5")
    assert box.currentText() == "T2"
    box.setCurrentText(chosen)
    box.activated.emit(box.currentIndex())
    assert asked_for == [("key5", asked)]


def test_a_column_that_says_the_same_everywhere_is_not_shown(view, rows):
    assert view.view.isColumnHidden(DATE)
    assert not view.view.isColumnHidden(NAME)
    later = replace(rows[1], series=replace(rows[1].series, date="2024-03-01"))
    view.show_rows((rows[0], later), "two series")
    assert not view.view.isColumnHidden(DATE)


def test_names_of_series_are_shown_to_the_letter(qtbot):
    (row,) = judge_series([series(1, "<b>T1</b> & more")])
    assert "&lt;b&gt;" in SeriesTable.data(filled(row), filled(row).index(0, NAME), Qt.ItemDataRole.ToolTipRole)
    assert "<b>" in explain_row(row)


def filled(*rows: SeriesRow) -> SeriesTable:
    table = SeriesTable()
    table.fill(rows)
    return table


@pytest.mark.parametrize("width", [320, 700])
def test_the_description_takes_what_room_there_is(view, width):
    view.resize(width, 300)
    view.grab()  # which lays it out
    shown = [view.view.columnWidth(column) for column in (USE, NAME, SHOWS, PLANE, VOXELS, WHY)]
    assert sum(shown) >= width - 40
    assert shown[1] >= 60
    assert view.view.columnWidth(USE) < 120
