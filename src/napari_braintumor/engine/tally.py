"""Labels slice by slice: the voxels of each label, a digest to recognize a slice by, and packed slices."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FEW = 256


@dataclass(frozen=True)
class SliceTally:
    """The content of a slice of labels.

    Attributes
    ----------
    voxels
        The number of voxels of each label that occurs, except the background.
    digest
        Equal for two slices if and only if their labels are equal, whatever their integer type; empty if all are 0.
    """

    voxels: Mapping[int, int]
    digest: bytes


EMPTY = SliceTally({}, b"")


def tally_slice(labels_YX: NDArray[Any]) -> SliceTally:
    """Count the labels of one slice, integers of any type."""
    flat = np.asarray(labels_YX).ravel()
    if not (
        flat.view(np.bool_) if flat.itemsize == 1 else flat
    ).any():  # reading bytes as booleans is four times faster
        return EMPTY
    where = np.flatnonzero(flat)
    labels = flat[where]
    if int(labels.min()) >= 0 and int(labels.max()) < _FEW:
        labels = labels.astype(np.uint8)
        counts = np.bincount(labels)
        found = np.flatnonzero(counts)
        voxels = dict(zip(found.tolist(), counts[found].tolist(), strict=True))
    else:
        labels = labels.astype(np.int64)
        found, counts = np.unique(labels, return_counts=True)
        voxels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    digest = blake2b(where.astype(np.uint32).tobytes(), digest_size=12)
    digest.update(labels.tobytes())
    return SliceTally(voxels, digest.digest())


def tally_slices(labels_ZYX: Any) -> tuple[SliceTally, ...]:
    """Count every slice, one at a time because some arrays are larger than memory."""
    return tuple(tally_slice(labels_ZYX[z]) for z in range(labels_ZYX.shape[0]))


def add_up(slices: Iterable[SliceTally]) -> dict[int, int]:
    """Return the total number of voxels of each label in several slices."""
    total: Counter[int] = Counter()
    for each in slices:
        total.update(each.voxels)
    return dict(total)


def pack_slice(labels_YX: NDArray[np.uint8]) -> bytes:
    """Compress a slice; `unpack_slice` restores it."""
    return zlib.compress(np.ascontiguousarray(labels_YX, np.uint8).tobytes(), 1)


def unpack_slice(packed: bytes, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Restore a slice that `pack_slice` compressed."""
    return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(shape)
