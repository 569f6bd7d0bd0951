"""Compare the bundled models on the sample case in a real napari window and save a picture of it.

Needs a display: ``xvfb-run -a python tools/make_compare_screenshot.py``. Only the synthetic sample case may be shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import napari
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from make_screenshot import hide_activity, save_picture

WIDTH, HEIGHT = 1600, 1000
DOCK_WIDTH = 670


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "docs" / "compare.png"
    parser.add_argument("output", type=Path, nargs="?", default=default, help="PNG file (default: docs/compare.png)")
    parser.add_argument("--limit", type=float, default=600, help="seconds the comparison may take")
    arguments = parser.parse_args()

    viewer = napari.Viewer(show=False)
    viewer.open_sample("napari-braintumor", "sample-case")
    window_dock, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Models")
    viewer.show()
    window = window_dock.window()
    window.resize(WIDTH, HEIGHT)
    window.resizeDocks([window_dock], [DOCK_WIDTH], Qt.Orientation.Horizontal)

    dock.table.tick([model.path for model in dock.table.models if model.bundled])
    dock.compare_button.click()
    start = time.monotonic()
    while dock.compare_button.isHidden():
        QApplication.processEvents()
        if time.monotonic() - start > arguments.limit:
            sys.exit(f"The comparison took more than {arguments.limit:.0f} s.")
    if not dock.comparison.figures.isVisibleTo(dock):
        sys.exit(dock.message.text() or dock.check_line.text())

    disputed = viewer.layers[-1]
    viewer.dims.set_current_step(0, int((disputed.data > 0).sum((1, 2)).argmax()))
    viewer.reset_view()
    hide_activity(window)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    dock.scroll_area.ensureWidgetVisible(dock.comparison.figures.copy_button)
    save_picture(viewer, arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1024:.0f} kB")
    viewer.close()


if __name__ == "__main__":
    main()
