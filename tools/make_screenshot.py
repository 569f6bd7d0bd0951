"""Segment the sample case in a real napari window and save a picture of it.

Needs a display: ``xvfb-run -a python tools/make_screenshot.py``. Only the synthetic sample case may be shown.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import napari
from napari.layers import Labels
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget

WIDTH, HEIGHT = 1400, 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "docs" / "screenshot.png"
    parser.add_argument("output", type=Path, nargs="?", default=default, help="PNG file (default: docs/screenshot.png)")
    parser.add_argument("--limit", type=float, default=300, help="seconds the segmentation may take")
    arguments = parser.parse_args()

    viewer = napari.Viewer(show=False)
    viewer.open_sample("napari-braintumor", "sample-case")
    window_dock, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    viewer.show()
    window = window_dock.window()
    window.resize(WIDTH, HEIGHT)
    window.resizeDocks([window_dock], [360], Qt.Orientation.Horizontal)

    dock.segment_button.click()
    start = time.monotonic()
    while dock.segment_button.isHidden():
        QApplication.processEvents()
        if time.monotonic() - start > arguments.limit:
            sys.exit(f"The segmentation took more than {arguments.limit:.0f} s.")
    if not dock.result_card.isVisible():
        sys.exit(dock.message.text())

    show_tumor(viewer)
    dock.result_card.parentWidget().adjustSize()
    dock.scroll_area.ensureWidgetVisible(dock.result_card)
    hide_activity(window)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    save_picture(viewer, arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1024:.0f} kB")
    viewer.close()


def show_tumor(viewer: napari.Viewer) -> None:
    """Move the slider to the slice with the most tumor."""
    (layer,) = (item for item in viewer.layers if isinstance(item, Labels) and item.visible)
    area = (layer.data > 0).sum((1, 2))
    viewer.dims.set_current_step(0, int(area.argmax()))
    viewer.layers.selection.active = layer
    viewer.reset_view()


def hide_activity(window: QWidget) -> None:
    """Close the docks that only napari needs."""
    for other in window.findChildren(QDockWidget):
        if other.windowTitle() in ("console", "activity"):
            other.hide()


def save_picture(viewer: napari.Viewer, path: Path) -> None:
    """Save the window, in 256 colors to be light on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)[..., :3])
    picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
