"""The Run tab: how long a training takes and how it learns, with the learning rate as a curve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_braintumor.engine.training.plan import TrainPlan
from napari_braintumor.engine.training.schedules import list_rates
from napari_braintumor.widgets.shared.forms import Row, SettingsForm
from napari_braintumor.widgets.shared.parts import make_collapsible
from napari_braintumor.widgets.shared.plots import Line, Plot

EVERYDAY: dict[str, Row] = {
    "minutes": {"label": "Minutes, at most", "empty": "no limit", "step": 0.5, "decimals": 1},
    "epochs": {"label": "Epochs"},
    "steps_per_epoch": {"label": "Batches per epoch", "step": 10},
    "batch_size": {"label": "Slices per batch"},
    "patience": {"label": "Patience, epochs", "empty": "never"},
    "augmentation": {"label": "Augmentation"},
    "schedule": {"label": "Learning rate"},
    "learning_rate": {"label": "Highest rate", "step": 1e-4, "decimals": 6},
}
ADVANCED: dict[str, Row] = {
    "loss": {"label": "Loss"},
    "optimizer": {"label": "Optimizer"},
    "weight_decay": {"label": "Weight decay", "step": 1e-4, "decimals": 6},
    "warm_up": {"label": "Warm-up share", "step": 0.01},
    "cycle_mode": {"label": "Cycle mode"},
    "cycle_steps": {"label": "Half a cycle", "step": 50},
    "averaging": {"label": "Averaging (EMA)", "step": 0.001, "decimals": 4},
    "tumor_share": {"label": "Tumor share", "step": 0.05},
    "modality_dropout": {"label": "Modality dropout", "step": 0.05},
    "tumor_mixing": {"label": "Tumor mixing", "step": 0.05},
    "elastic_px": {"label": "Elastic, pixels", "step": 1, "decimals": 1},
    "tversky_alpha": {"label": "Tversky alpha", "step": 0.05},
    "keep": {"label": "Weights kept"},
    "preview_every": {"label": "Preview, epochs"},
    "device": {"label": "Device"},
    "precision": {"label": "Precision"},
    "threads": {"label": "Threads (0: all)"},
    "workers": {"label": "Loader processes", "empty": "auto"},
    "cache_gb": {"label": "Cache, GB", "step": 0.5, "decimals": 1},
    "seed": {"label": "Seed"},
}
"""With the other two tabs, what a user decides. Other fields of a plan keep their defaults."""


MARGINS_PX = (4, 9, 4, 9)
"""Narrow, as the longest rows are here."""


class RunPage(QWidget):
    """Choose how long and how to learn."""

    def __init__(self) -> None:
        super().__init__()
        self.everyday = SettingsForm(TrainPlan, EVERYDAY)
        self.advanced = SettingsForm(TrainPlan, ADVANCED)
        self.rate_plot = Plot("learning rate, batch by batch")
        for form in (self.everyday, self.advanced):
            form.changed.connect(self._draw_rates)
        column = QVBoxLayout(self)
        column.setContentsMargins(*MARGINS_PX)
        column.setAlignment(Qt.AlignmentFlag.AlignTop)
        column.addWidget(self.everyday)
        column.addWidget(self.rate_plot)
        column.addWidget(make_collapsible("Advanced", self.advanced))

    def settings(self) -> dict[str, Any]:
        """Return the choices, as fields of a plan."""
        return {**self.everyday.values(), **self.advanced.values()}

    def show_plan(self, plan: TrainPlan) -> None:
        """Show the values of a plan."""
        for form in (self.everyday, self.advanced):
            form.set_values({name: getattr(plan, name) for name in form.editors})

    def _draw_rates(self) -> None:
        try:
            plan = TrainPlan(name="a", cases=(Path("a"),), **self.settings())
        except ValidationError:
            self.rate_plot.show_lines([])
            return
        steps, rates = plan.epochs * plan.steps_per_epoch, list_rates(plan)
        self.rate_plot.show_lines([Line([(steps * i / (len(rates) - 1), rate) for i, rate in enumerate(rates)])])
