"""A paragraph for the methods section of a paper: how labels were made and measured, with versions and citations."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from napari_braintumor.engine.errors import BrainTumorError
from napari_braintumor.engine.files.formats import join_words
from napari_braintumor.engine.models.card import ModelCard
from napari_braintumor.engine.models.registry import find_architecture

PROGRAM = "napari-braintumor"

_MEASURED = (
    "Volumes are voxel counts times the volume of a voxel. Bidimensional products are the longest diameter in an axial "
    "slice times the longest diameter at right angles to it there [RANO]. Lesions are the parts of a region that are "
    "connected after dilation by 3 mm [BraTS]."
)
_LEAST_ML = 0.05

REFERENCES: Mapping[str, str] = {
    "RANO": "Wen PY et al. RANO 2.0: update to the Response Assessment in Neuro-Oncology criteria for high- and "
    "low-grade gliomas in adults. J Clin Oncol 2023. doi:10.1200/JCO.23.01059",
    "BraTS": "Saluja R et al. BraTS 2023 lesion-wise performance metrics. "
    "https://github.com/rachitsaluja/BraTS-2023-Metrics",
}


def describe_methods(record: Mapping[str, Any], card: ModelCard | None = None) -> str:
    """Describe how labels were made and measured.

    Parameters
    ----------
    record
        Of a result, from `describe_segmentation` or `describe_corrected`; empty for labels that were drawn by hand.
    card
        The card of the model, for what it was trained on.

    Returns
    -------
    str
        A paragraph, and the references it names, one a line.
    """
    references = dict(REFERENCES)
    here = f"{PROGRAM} {version(PROGRAM)}"
    model = record.get("model")
    if not model:
        made = f"Tumors were segmented by hand and measured with {here}."
    else:
        used = join_words(record.get("modalities_used", ()), "and")
        made = (
            f"Tumors were segmented on {used} images with {here} and its model {model} "
            f"(version {record.get('model_version', 'unknown')}, SHA-256 {str(record.get('model_sha256', ''))[:12]}"
            f"{_describe_network(card, references)})."
        )
        made += _describe_training(card)
        made += _describe_hands(record)
    unknown = record.get("spacing_known") is False
    guess = " The voxel size was not stated in the files, so sizes in mm and mL are guesses." if unknown else ""
    listed = "\n".join(f"[{key}] {text}" for key, text in references.items())
    return f"{made} {_MEASURED}{guess} For research only; not a medical device.\n\n{listed}\n"


def _describe_network(card: ModelCard | None, references: dict[str, str]) -> str:
    if card is None:
        return ""
    try:
        architecture = find_architecture(card.architecture)
    except BrainTumorError:
        return ""
    references["network"] = f"{architecture.citation.text}. doi:{architecture.citation.doi}"
    return f"; {architecture.title} [network]"


def _describe_training(card: ModelCard | None) -> str:
    if card is None or not card.trained_on:
        return ""
    sources = join_words([f"{source.name} ({source.patients} patients)" for source in card.trained_on], "and")
    return f" The model was trained on {sources}."


def _describe_hands(record: Mapping[str, Any]) -> str:
    edited, reviewed = len(record.get("edited_slices_z", ())), len(record.get("reviewed_slices_z", ()))
    if not edited and not reviewed:
        return " Its labels were not changed by hand."
    parts = []
    if edited:
        changes = [f"{name} {ml:+.1f} mL" for name, ml in record.get("by_hand_ml", {}).items() if abs(ml) >= _LEAST_ML]
        what = f" ({join_words(changes, 'and')})" if changes else ""
        parts.append(f"{edited} slices were corrected by hand{what}")
    if reviewed:
        parts.append(f"{reviewed} slices were marked as reviewed")
    return f" Then {join_words(parts, 'and')}."
