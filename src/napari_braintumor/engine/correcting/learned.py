"""A small network that has learned from simulated strokes how far strokes reach.

It sees a voxel at a time, by its clues, and adds to what likeness and nearness move. How it was trained is in
docs/correcting.md.
"""

# V voxel, C clue

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_braintumor.engine.anatomy import MODALITIES, WHOLE
from napari_braintumor.engine.correcting.clues import Clues
from napari_braintumor.engine.correcting.evidence import Evidence
from napari_braintumor.engine.correcting.features import CaseFeatures
from napari_braintumor.engine.correcting.fitting import GaussianProcess, MakeRefinement, Refine, fit_change
from napari_braintumor.engine.correcting.spreading import Floats

BUNDLED = Path(__file__).parent / "stroke_network.safetensors"

FOUND_MM = 60.0
"""Within this distance of the strokes there must be more of the tumor than lies under them."""


@dataclass(frozen=True, eq=False)
class StrokeNetwork:
    """A multilayer perceptron.

    Attributes
    ----------
    layers
        Weights ``(in, out)`` and biases ``(out,)``, from the clues to one number.
    """

    layers: tuple[tuple[Floats, Floats], ...]

    def run(self, clues_VC: Floats) -> Floats:
        """Return by how much each voxel moves beyond what likeness and nearness say: ``(V,)``."""
        values = clues_VC
        for number, (weights, bias) in enumerate(self.layers):
            values = values @ weights + bias
            if number < len(self.layers) - 1:
                values = values / (1 + np.exp(-values))  # SiLU
        return np.asarray(values[:, 0], np.float32)


@cache
def load_stroke_network(path: Path = BUNDLED) -> StrokeNetwork:
    """Load the network; it is kept.

    Returns
    -------
    StrokeNetwork
        The network.
    """
    from safetensors.numpy import load_file

    tensors = load_file(path)
    count = len(tensors) // 2
    return StrokeNetwork(tuple((tensors[f"{n}.weight"], tensors[f"{n}.bias"]) for n in range(count)))


def fit_learned(features: CaseFeatures, logits_VR: Floats, evidence: Evidence) -> Floats:
    """Return the squeezed logits ``(V, R)`` after strokes, as `fit_change`, with what the network has learned.

    It has learned of the whole tumor, and from models that show their last layers. Other regions and other models are
    followed by likeness and nearness alone.

    Returns
    -------
    array
        float32 ``(V, R)``.
    """
    refine = refine_by(load_stroke_network()) if knows(features) else None
    return fit_change(features, logits_VR, evidence, refine=refine)


def knows(features: CaseFeatures) -> bool:
    """Whether the network knows cases like this one."""
    whole = bool(features.regions) and features.regions[0].name == WHOLE
    return features.adapts and whole and features.images.shape[1:] == (len(MODALITIES),)


def refine_by(network: StrokeNetwork, regions: tuple[int, ...] = (0,)) -> MakeRefinement:
    """Return what makes a refinement of a process, of some regions, by a network."""

    def make(process: GaussianProcess) -> Refine | None:
        if not found_near(process):
            return None
        clues = Clues(process)

        def refine(rows: NDArray[np.intp], moves: Floats) -> Floats:
            refined = moves.copy()
            for column, region in enumerate(process.regions):
                if region in regions:
                    refined[:, column] += network.run(clues.describe(rows, region, moves[:, column]))
            return refined

        return refine

    return make


def found_near(process: GaussianProcess) -> bool:
    """Whether anything of the whole tumor was there near the strokes; the network knows no cases without."""
    features, rows = process.features, process.evidence.rows
    near = features.find_near(features.find_mm(rows).mean(0), FOUND_MM)
    return int((process.before_VR[near, 0] > 0).sum()) > len(rows)
