from __future__ import annotations

from pathlib import Path

import pytest
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QWidget

from napari_braintumor.widgets.segmenting.drops import FileDrops, OpenButton, paths_in

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
COPY = Qt.DropAction.CopyAction


def mime(*urls: str) -> QMimeData:
    data = QMimeData()
    data.setUrls([QUrl(url) for url in urls])
    return data


def drop(target: QWidget, data: QMimeData) -> bool:
    """Drag over a widget and let go, as the mouse does; return whether it was taken."""
    enter = QDragEnterEvent(QPoint(5, 5), COPY, data, LEFT, NONE)
    QApplication.sendEvent(target, enter)
    if not enter.isAccepted():
        return False
    QApplication.sendEvent(target, QDropEvent(QPointF(5, 5), COPY, data, LEFT, NONE))
    return True


def test_files_and_folders_that_are_dropped_are_asked_for(qtbot, tmp_path):
    widget, asked = QWidget(), []
    qtbot.addWidget(widget)
    FileDrops(widget).dropped.connect(asked.append)
    assert drop(widget, mime(tmp_path.as_uri(), (tmp_path / "a b.nii").as_uri()))
    assert asked == [[tmp_path, tmp_path / "a b.nii"]]


@pytest.mark.parametrize("data", [mime("https://example.org/scan.nii"), QMimeData()], ids=["web", "nothing"])
def test_what_is_no_file_of_this_computer_is_left_alone(qtbot, data):
    widget, asked = QWidget(), []
    qtbot.addWidget(widget)
    FileDrops(widget).dropped.connect(asked.append)
    assert not drop(widget, data)
    assert asked == []
    assert paths_in(None) == []


@pytest.mark.parametrize("action", ["folder", "files"])
def test_the_button_asks_for_a_folder_or_for_files(qtbot, monkeypatch, tmp_path, action):
    button, asked = OpenButton(), []
    qtbot.addWidget(button)
    button.asked.connect(asked.append)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([str(tmp_path / "a"), str(tmp_path / "b")], ""))
    getattr(button, f"{action}_action").trigger()
    assert asked == [[tmp_path] if action == "folder" else [tmp_path / "a", tmp_path / "b"]]


def test_nothing_happens_if_the_dialog_is_closed(qtbot, monkeypatch):
    button, asked = OpenButton(), []
    qtbot.addWidget(button)
    button.asked.connect(asked.append)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: "")
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: ([], ""))
    button.folder_action.trigger()
    button.files_action.trigger()
    assert asked == []


def test_a_dialog_begins_where_the_last_one_ended(qtbot, monkeypatch, tmp_path):
    button, begun = OpenButton(), []
    qtbot.addWidget(button)

    def ask(_: QWidget, __: str, folder: str) -> str:
        begun.append(folder)
        return str(tmp_path / "case")

    monkeypatch.setattr(QFileDialog, "getExistingDirectory", ask)
    button.folder_action.trigger()
    button.folder_action.trigger()
    assert list(map(Path, begun)) == [Path(), tmp_path]
