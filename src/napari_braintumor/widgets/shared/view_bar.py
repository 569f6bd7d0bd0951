"""Buttons for the planes of a head and the view from outside, and for which side the patient's left is on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_braintumor.layers import (
    PLANES,
    SOLID,
    Solids,
    build_solids,
    case_of,
    go_to_largest_section,
    is_neurological,
    scans_in,
    show_letters,
    show_plane,
    show_solids,
    shown_plane,
    unwrap_layer,
)
from napari_braintumor.widgets.shared.dock import open_dock
from napari_braintumor.widgets.shared.following import follow
from napari_braintumor.widgets.shared.jobs import Job
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import Combo, name_widget

CONVENTIONS = {False: "Patient's left on the right", True: "Patient's left on the left"}
"""What they look like; False is the radiological, True the neurological convention."""

_CONVENTION_NAMES = {False: "Radiological", True: "Neurological"}

_TOOLTIPS = {
    "axial": "Look from the feet: the front of the head is up",
    "coronal": "Look from the front: the top of the head is up",
    "sagittal": "Look from the left: the nose points to the left",
    SOLID: "See the tumor from outside, its outer region translucent. A plane's button leads back",
}


class ViewBar(QWidget):
    """The buttons. Several bars of one viewer show the same.

    Parameters
    ----------
    viewer
        Whose planes are chosen.
    find_layer
        Returns the label layer that is shown from outside, and whose largest section is looked for.
    """

    def __init__(self, viewer: Any, find_layer: Callable[[], Labels | None]) -> None:
        super().__init__()
        self._viewer = viewer
        self._find_layer = find_layer
        self._job: Job | None = None
        self._build()
        show_letters(viewer)
        if (settings := view_settings()) is not None:
            self._show_convention(settings.neurological)
            follow(self, self._follow_settings, settings.events.neurological)
        dims, camera, layers = viewer.dims.events, viewer.scene.camera.events, viewer.layers.events
        follow(self, self.refresh, dims.order, dims.ndisplay, camera.orientation, layers.inserted, layers.removed)
        self.refresh()

    @property
    def neurological(self) -> bool:
        """Whether the patient's left is shown on the left."""
        return bool(self.convention_box.currentData())

    @property
    def idle(self) -> bool:
        """Whether no surfaces are being built."""
        return self._job is None

    def refresh(self, _: Any = None) -> None:
        """Show what the viewer shows, and what can be shown."""
        shown = shown_plane(self._viewer)
        scans = bool(scans_in(self._viewer.layers))
        layer = self._find_layer()
        for name, button in self.buttons.items():
            button.setChecked(name == shown)
            button.setEnabled(scans and (name != SOLID or (layer is not None and self._job is None)))
        self.largest_button.setEnabled(layer is not None and shown in PLANES)
        self.convention_box.setEnabled(scans)
        self.planes_button.setEnabled(scans)
        now = is_neurological(self._viewer)
        if now is not None and shown in PLANES:
            self._show_convention(now)

    def go_to_largest(self) -> None:
        """Move the slider to the largest section of the tumor."""
        layer = self._find_layer()
        if layer is not None:
            go_to_largest_section(self._viewer, layer)

    def _build(self) -> None:
        row = QWidget()
        flow = QFlowLayout(row)
        flow.setContentsMargins(0, 0, 0, 0)
        self.buttons: dict[str, QPushButton] = {}
        for name in (*PLANES, SOLID):
            text = name if name == SOLID else name.capitalize()
            button = QPushButton(text)
            button.setCheckable(True)
            name_widget(button, text, _TOOLTIPS[name])
            button.clicked.connect(partial(self._show, name))
            flow.addWidget(button)
            self.buttons[name] = button
        self.largest_button = QPushButton("Largest section")
        name_widget(self.largest_button, "Largest section", "Go to the slice with most of the tumor, in this plane")
        self.largest_button.clicked.connect(self.go_to_largest)
        flow.addWidget(self.largest_button)
        self.planes_button = QPushButton("Three planes")
        name_widget(self.planes_button, "Three planes", "Open the other two planes beside this one, with a crosshair")
        self.planes_button.clicked.connect(self._open_planes)
        flow.addWidget(self.planes_button)
        self.convention_box = Combo()
        for value, text in _CONVENTION_NAMES.items():
            self.convention_box.addItem(text, value)
        name_widget(
            self.convention_box,
            "Convention",
            f"Radiological: {CONVENTIONS[False].lower()}, as seen from the feet. "
            f"Neurological: {CONVENTIONS[True].lower()}. The files are not changed",
        )
        self.convention_box.currentIndexChanged.connect(self._change_convention)
        self.message = Message()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (row, self.convention_box, self.message):
            column.addWidget(widget)

    def _show(self, name: str, _: bool = False) -> None:
        layer = self._find_layer()
        self.message.show_text("")
        if name != SOLID:
            show_plane(self._viewer, name, self.neurological)
        elif layer is not None and self._job is None:
            shown = [scan for scan in scans_in(self._viewer.layers) if scan.visible]
            case = case_of(layer) or str(layer.name)
            self._job = Job(self, "Look from outside", _build_solids, unwrap_layer(layer), shown[-1] if shown else None)
            self._job.happened.connect(lambda solids: show_solids(self._viewer, solids, case))
            self._job.failed.connect(self.message.show_failure)
            self._job.ended.connect(self._end)
            self._job.start()
        self.refresh()

    def _open_planes(self) -> None:
        from napari_braintumor.widgets.planes.dock import PlanesDock

        open_dock(self._viewer, PlanesDock)

    def _end(self) -> None:
        self._job = None
        self.refresh()

    def _change_convention(self) -> None:
        if (settings := view_settings()) is not None:
            settings.neurological = self.neurological
        shown = shown_plane(self._viewer)
        if shown in PLANES:
            show_plane(self._viewer, shown, self.neurological)

    def _follow_settings(self, event: Any) -> None:
        self._show_convention(event.value)

    def _show_convention(self, neurological: bool) -> None:
        blocked = self.convention_box.blockSignals(True)
        self.convention_box.setCurrentIndex(self.convention_box.findData(neurological))
        self.convention_box.blockSignals(blocked)


def _build_solids(layer: Labels, scan: Image | None) -> Generator[Solids, None, None]:
    yield build_solids(layer, scan)


def view_settings() -> Any | None:
    """Return napari's settings of how this plugin shows heads, with events, saved by napari; None if there are none."""
    try:
        from napari.settings import get_plugin_settings

        return get_plugin_settings("napari-braintumor").view
    except (ImportError, KeyError, AttributeError):
        return None
