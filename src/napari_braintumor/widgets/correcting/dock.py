"""The Correct dock: strokes that the tumor follows, brush, edits of regions, and the review of slices."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QPushButton, QShortcut, QVBoxLayout, QWidget  # type: ignore[attr-defined]

from napari_braintumor.engine.correcting.shifting import measure_doubt
from napari_braintumor.layers import Figures, case_of, figures_of, follow_labels, is_result, unwrap_layer
from napari_braintumor.widgets.correcting.edits import Edits
from napari_braintumor.widgets.correcting.following import Follower
from napari_braintumor.widgets.correcting.region_tools import RegionTools
from napari_braintumor.widgets.correcting.review import Review
from napari_braintumor.widgets.correcting.section_tools import SectionTools
from napari_braintumor.widgets.correcting.tissues import BRUSH, STROKES, TissueBar
from napari_braintumor.widgets.shared.dock import Dock
from napari_braintumor.widgets.shared.following import follow
from napari_braintumor.widgets.shared.footer import Footer
from napari_braintumor.widgets.shared.message import Message
from napari_braintumor.widgets.shared.parts import make_collapsible, make_line, name_widget
from napari_braintumor.widgets.shared.result_card import describe_trust
from napari_braintumor.widgets.shared.view_bar import ViewBar

if TYPE_CHECKING:
    import napari

NOTHING_YET = "There is no tumor to correct yet. Segment a case first, or select the result of a run."

KEYS = (
    "Keys: Alt+D strokes, Alt+B brush, Alt+1 to Alt+4 tissues from outside to inside, Alt+0 nothing, [ and ] width, "
    "Esc puts all away; Alt+R reviewed, Alt+N next doubtful, Alt+M next not reviewed; Ctrl+Z undoes, Shift+Ctrl+Z "
    "redoes in the selected layer."
)


class CorrectDock(Dock):
    """The Correct dock.

    Parameters
    ----------
    napari_viewer
        The viewer whose results are corrected; napari passes it by this name.
    """

    title = "Correct"

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer)
        self._figures: Figures | None = None
        self._build()
        self._add_keys()
        follow_labels(napari_viewer)
        layers, dims = napari_viewer.layers, napari_viewer.dims
        follow(self, self._choose, layers.selection.events.active, layers.events.inserted, layers.events.removed)
        follow(self, self.review.refresh, dims.events.point, dims.events.order)
        follow(self, self.section_tools.refresh, layers.events.removed)
        self._choose()

    @property
    def target(self) -> Labels | None:
        """The result that is corrected."""
        return self._figures.layer if self._figures is not None else None

    def describe_closing(self) -> str:
        """Say that strokes are not prepared any more."""
        return "Preparing strokes was canceled because the dock was closed." if self.footer.job is not None else ""

    # ---------------------------------------------------------------------------------------------- building

    def _build(self) -> None:
        self.go_on_button = QPushButton("Reviewed, and on")
        name_widget(
            self.go_on_button,
            "Reviewed, and on",
            "Mark this slice as reviewed, and go to the next doubtful slice, or else to the next one with tumor",
        )
        self.footer = Footer(self.go_on_button, "Stop preparing strokes; the brush needs none of it")
        self.message = Message()
        self.edits = Edits(self)
        self.follower = Follower(self, self._viewer, self.footer)

        body = QWidget()
        column = QVBoxLayout(body)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.target_line = make_line("", "What is corrected")
        self.trust_line = make_line("", "Trust in the model's answer")
        self.view_bar = ViewBar(self._viewer, lambda: self.target)
        self.tissues = TissueBar()
        self.undo_button = QPushButton("Undo")
        name_widget(self.undo_button, "Undo", "Take back the last stroke or edit (Ctrl+Z in the selected layer)")
        self.region_tools = RegionTools(self._viewer, self.edits)
        self.section_tools = SectionTools(self._viewer, self.edits)
        self.review = Review(self._viewer)
        self.regions_part = make_collapsible("Regions", self.region_tools)
        self.sections_part = make_collapsible("Slices and the model's own", self.section_tools)
        self.keys_part = make_collapsible("Keys", make_line(KEYS, "Keys"))
        for widget in (
            self.target_line,
            self.trust_line,
            self.view_bar,
            self.tissues,
            self.undo_button,
            self.message,
            self.review,
            self.regions_part,
            self.sections_part,
            self.keys_part,
        ):
            column.addWidget(widget)
        self.lay_out(body, (self.footer,))

        self.tissues.changed.connect(self._draw)
        self.undo_button.clicked.connect(self.undo)
        self.go_on_button.clicked.connect(self.review.mark_and_go_on)
        for part in (self.edits, self.follower, self.region_tools, self.section_tools, self.review):
            part.reported.connect(self.message.show_text)
        for runner in (self.edits, self.follower):
            runner.failed.connect(partial(self.message.show_failure, before="Not changed: "))
        self.region_tools.hand_changed.connect(self._note_hand)
        self.follower.ready.connect(self._show_features)

    def _add_keys(self) -> None:
        """Bind keys that napari leaves free, as long as the dock is in sight, wherever in the window the focus is."""
        actions: dict[str, Any] = {
            "Alt+D": partial(self._toggle_way, STROKES),
            "Alt+B": partial(self._toggle_way, BRUSH),
            "Alt+R": self.review.toggle_mark,
            "Alt+N": self.review.go_to_doubtful,
            "Alt+M": self.review.go_to_open,
            **{f"Alt+{number}": partial(self.tissues.choose_number, number) for number in range(5)},
        }
        self.shortcuts = {keys: QShortcut(QKeySequence(keys), self) for keys in (*actions, "Esc")}
        for keys, action in actions.items():
            self.shortcuts[keys].activated.connect(action)
        self.shortcuts["Esc"].activated.connect(self.put_away)
        self.shortcuts["Esc"].setEnabled(False)  # napari has a use for it, while nothing is in hand here

    # ---------------------------------------------------------------------------------------------- which layer

    def _choose(self, _: Any = None) -> None:
        """Work on the selected result, else on the last one if it is still there, else on the topmost."""
        results = [unwrap_layer(layer) for layer in self._viewer.layers if is_result(layer)]
        active = unwrap_layer(self._viewer.layers.selection.active)
        last = self.target
        chosen = active if active in results else last if last in results else (results[-1] if results else None)
        if chosen is not last or chosen is None:
            self._work_on(chosen)

    def _work_on(self, layer: Labels | None) -> None:
        if self._figures is not None:
            self._figures.events.changed.disconnect(self.review.refresh)
        self.put_away()
        self._figures = figures_of(layer) if layer is not None else None
        if self._figures is not None:
            self._figures.events.changed.connect(self.review.refresh)
        self.target_line.setText(f"Correcting {case_of(layer) or layer.name}" if layer is not None else NOTHING_YET)
        answer = self._figures.answer if self._figures is not None else None
        self.trust_line.setText(describe_trust(answer) if answer is not None else "")
        self.trust_line.setVisible(bool(self.trust_line.text()))
        self.undo_button.setEnabled(layer is not None)
        self.go_on_button.setEnabled(layer is not None)
        for button in self.tissues.way_buttons.values():
            button.setEnabled(layer is not None)
        self.tissues.work_on(layer, None)
        self.section_tools.work_on(layer)
        self._show_features()
        self.view_bar.refresh()

    def _show_features(self) -> None:
        features = self.follower.features_of(self.target)
        self.region_tools.work_on(self.target, features)
        self.review.work_on(self.target, measure_doubt(features).tolist() if features is not None else ())

    # ---------------------------------------------------------------------------------------------- drawing

    def _toggle_way(self, way: str) -> None:
        self.tissues.choose_way("" if self.tissues.way == way else way)

    def _draw(self) -> None:
        """Take the chosen brush in hand, in the layer that it draws in."""
        layer = self.target
        if layer is None:
            return
        if self.tissues.way:
            self.region_tools.put_away()
        strokes = None
        if self.tissues.way == STROKES:
            scribble = self.follower.scribble_on(layer)
            if scribble is None:
                self.tissues.put_away()
                return
            strokes = scribble.layer
        self.tissues.work_on(layer, strokes or self.follower.strokes_of(layer))
        self.tissues.select_layer(self._viewer)
        self._note_hand()

    def put_away(self) -> None:
        """Hold no brush and await no click."""
        self.region_tools.put_away()
        if self.tissues.way:
            self.tissues.put_away()
        self._note_hand()

    def _note_hand(self) -> None:
        if self.region_tools.picking and self.tissues.way:
            self.tissues.put_away()
        self.shortcuts["Esc"].setEnabled(bool(self.tissues.way) or self.region_tools.picking)

    def undo(self) -> None:
        """Take back the last stroke, while strokes are drawn, else the last edit."""
        layer = self.target
        strokes = self.follower.strokes_of(layer) if layer is not None else None
        if strokes is not None and self.tissues.way == STROKES:
            strokes.undo()
        elif layer is not None:
            layer.undo()
