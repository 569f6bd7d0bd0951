"""Segment the sample case in a real napari window and save a picture of it.

Needs a display: ``xvfb-run -a python tools/make_screenshot.py``. Only the synthetic sample case may be shown. With
``--scanner`` it is opened as a scanner would write it: a folder of DICOM series on different grids, some of no use.
With ``--correct`` a stroke is drawn and followed in the Correct dock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import napari
from napari.layers import Labels
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QDockWidget, QWidget

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1400, 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?", help="PNG file (default: in docs)")
    parser.add_argument("--scanner", action="store_true", help="open DICOM series, made of the sample case")
    parser.add_argument("--correct", action="store_true", help="draw a stroke in the Correct dock")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark", help="napari's theme")
    parser.add_argument("--limit", type=float, default=300, help="seconds the segmentation may take")
    arguments = parser.parse_args()
    name = "scanner_case.png" if arguments.scanner else "screenshot.png"
    if arguments.correct:
        name = f"correcting_{arguments.theme}.png"
    output = arguments.output or ROOT / "docs" / name

    viewer = napari.Viewer(show=False)
    viewer.theme = arguments.theme
    if not arguments.scanner:
        viewer.open_sample("napari-braintumor", "sample-case")
    window_dock, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Segment")
    viewer.show()
    window = window_dock.window()
    window.resize(WIDTH, HEIGHT + 100 * arguments.scanner)
    window.resizeDocks([window_dock], [570 if arguments.scanner else 360], Qt.Orientation.Horizontal)
    if arguments.scanner:
        open_scanner_case(dock, arguments.limit)

    dock.segment_button.click()
    wait(lambda: not dock.segment_button.isHidden(), arguments.limit, "The segmentation")
    if not dock.result_card.isVisible():
        sys.exit(dock.message.text())

    show_tumor(viewer)
    if arguments.correct:
        correct_with_stroke(viewer, window_dock, arguments.limit)
    dock.result_card.parentWidget().adjustSize()
    if not arguments.scanner and not arguments.correct:
        dock.scroll_area.ensureWidgetVisible(dock.result_card)
    hide_activity(window)
    for _ in range(50):
        QApplication.processEvents()
        time.sleep(0.01)
    save_picture(viewer, output)
    print(f"{output}: {output.stat().st_size / 1024:.0f} kB")
    viewer.close()


def open_scanner_case(dock: Any, limit_s: float) -> None:
    """Write the sample case as DICOM series, with a scout, a map and a second T1 beside them, and open the folder."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from dicom import Acquisition, write_series
    from scanner_case import SCALE, cut, read_sample, write_scanner_case

    folder = Path(tempfile.mkdtemp()) / "patient7"
    os.environ["BRAINTUMOR_CHOICES"] = str(folder.parent / "choices")
    write_scanner_case(folder)
    volume, axial, coronal = read_sample(), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)
    others = (
        ("localizer", 1, "T1", axial, 12.0, ("ORIGINAL", "PRIMARY", "M")),
        ("ep2d_diff_ADC", 6, "T2", axial, 6.0, ("DERIVED", "PRIMARY", "DIFFUSION", "ADC")),
        ("COR T2", 7, "T2", coronal, 6.0, ("ORIGINAL", "PRIMARY", "M")),
    )
    for description, number, modality, normal, slices_mm, image_type in others:
        values, affine = cut(volume, modality, normal, slices_mm, 2.0)
        said = Acquisition(
            description, number, echo_time=None, repetition_time=None, volumetric=False, image_type=image_type
        )
        write_series(folder / f"{number:03}", values * SCALE, affine, said)
    dock.opener.open([folder])
    wait(lambda: dock.footer.job is None, limit_s, "Opening")


def correct_with_stroke(viewer: napari.Viewer, segment_frame: QDockWidget, limit_s: float) -> None:
    """Draw a stroke of edema beside the tumor, and have the Correct dock follow it."""
    frame, dock = viewer.window.add_plugin_dock_widget("napari-braintumor", "Correct")
    segment_frame.hide()
    frame.window().resizeDocks([frame], [380], Qt.Orientation.Horizontal)
    dock.regions_part.expand(animate=False)
    dock.tissues.choose_number(1)
    wait(lambda: dock.footer.job is None, limit_s, "Preparing strokes")
    strokes = viewer.layers.selection.active
    z, row, column = (round(each) for each in strokes.world_to_data(viewer.dims.point))
    tumor = dock.target.data[z] > 0
    row = int(tumor.any(1).nonzero()[0].mean())
    column = int(tumor[row].nonzero()[0].max()) + 5
    with strokes.block_history():
        for step in range(-4, 5):
            strokes.paint((z, row + step, column), strokes.selected_label)
    wait(lambda: "followed" in dock.message.text(), limit_s, "The stroke")
    dock.section_tools.outline_box.click()
    viewer.reset_view()


def wait(is_done: Callable[[], bool], limit_s: float, what: str) -> None:
    """Let the window work until something is done."""
    start_s = time.monotonic()
    while not is_done():
        QApplication.processEvents()
        time.sleep(0.005)
        if time.monotonic() - start_s > limit_s:
            sys.exit(f"{what} took more than {limit_s:.0f} s.")


def show_tumor(viewer: napari.Viewer) -> None:
    """Move the slider to the slice with the most tumor."""
    (layer,) = (item for item in viewer.layers if isinstance(item, Labels) and item.visible)
    area = (layer.data > 0).sum((1, 2))
    viewer.dims.set_point(0, layer.data_to_world((int(area.argmax()), 0, 0))[0])
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
