"""Measure the sample case in a real napari window, and save a picture of the window and the figure of the export.

Needs a display: ``xvfb-run -a python tools/make_measure_screenshot.py``. Only the synthetic sample case may be shown.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT, DOCK = 1400, 900, 520
LIMIT_S = 300


def main() -> None:
    viewer = napari.Viewer(show=False)
    viewer.open_sample("napari-braintumor", "sample-case")
    frame, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Measure")
    viewer.show()
    window = frame.window()
    window.resize(WIDTH, HEIGHT)
    window.resizeDocks([frame], [DOCK], Qt.Orientation.Horizontal)
    wait(lambda: bool(dock.rows), "Measuring")
    for layer in viewer.layers:
        layer.visible = layer.name.startswith("T1ce") or layer is dock.target
    dock.diameters_box.click()
    dock.view.clicked.emit(dock.table.index(0, 0))
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    output = ROOT / "docs" / "measure.png"
    viewer.window.screenshot(str(output), flash=False, canvas_only=False)
    folder = Path(tempfile.mkdtemp())
    dock.export_to(folder)
    wait(lambda: "record are in" in dock.message.text(), "The export")
    (made,) = folder.iterdir()
    shutil.copy(made / "figure.png", ROOT / "docs" / "measure_figure.png")
    print((made / "methods.txt").read_text(encoding="utf-8"))
    viewer.close()


def wait(done: Callable[[], bool], what: str) -> None:
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > LIMIT_S:
            sys.exit(f"{what} took longer than {LIMIT_S} s.")
        QApplication.processEvents()
        time.sleep(0.01)


if __name__ == "__main__":
    main()
