"""Connected components of a mask that is read slab by slab, so that the numbering never has to fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SLAB_SLICES = 32
"""Slices that are numbered together."""

Mask = NDArray[np.bool_]
Numbers = NDArray[np.signedinteger[Any]]


class ConnectedComponents:
    """The connected components of a mask.

    Parameters
    ----------
    read
        Returns the slices from a start up to a stop: bool ``(n, Y, X)``. It must return the same values every time.
    slices
        The number of slices in the mask.
    diagonal
        True if voxels that share only an edge or a corner are connected (26 neighbors), False if they must share a face
        (6 neighbors).

    Attributes
    ----------
    sizes
        Number of voxels of each component.
    spans
        Number of slices that each component spans.
    """

    def __init__(self, read: Callable[[int, int], Mask], slices: int, diagonal: bool) -> None:
        self._read = read
        self._slabs = [(start, min(start + SLAB_SLICES, slices)) for start in range(0, slices, SLAB_SLICES)]
        self._structure = ndimage.generate_binary_structure(3, 3 if diagonal else 1)
        sizes: list[Numbers] = []
        reach: list[tuple[int, int]] = []
        touching: list[Numbers] = []
        before: Numbers | None = None
        count = 0
        for start, stop in self._slabs:
            numbered, found, around = self._number(start, stop)
            sizes.append(np.bincount(numbered[around].ravel(), minlength=found + 1)[1:])
            if found:
                first = start + around[0].start
                boxes = ndimage.find_objects(numbered[around], found)
                reach += [(first + along_z.start, first + along_z.stop) for along_z, *_ in boxes]
            top = np.where(numbered[0] > 0, numbered[0] + count, 0)
            if before is not None:
                touching.append(self._meet(before, top))
            before = np.where(numbered[-1] > 0, numbered[-1] + count, 0)
            count += found
        pairs = np.concatenate([np.empty((0, 2), np.intp), *touching]) - 1
        graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
        parts, part_of = connected_components(graph, directed=False) if count else (0, np.empty(0, np.intp))
        self.sizes = np.bincount(part_of, np.concatenate(sizes), minlength=parts).astype(np.intp)
        starts, stops = np.full(parts, slices), np.zeros(parts, np.intp)
        if reach:
            np.minimum.at(starts, part_of, np.array(reach)[:, 0])
            np.maximum.at(stops, part_of, np.array(reach)[:, 1])
        self.spans = stops - starts
        self._parts_in = np.split(part_of, np.cumsum([len(each) for each in sizes])[:-1])

    def keep(self, kept: Mask) -> Iterator[tuple[int, int, Mask]]:
        """Yield the mask slab by slab, with only some of its components.

        Parameters
        ----------
        kept
            Whether each component stays.

        Yields
        ------
        tuple
            Start slice, stop slice, and the mask between them.
        """
        for (start, stop), parts in zip(self._slabs, self._parts_in, strict=True):
            if kept[parts].all():
                yield start, stop, self._read(start, stop)
            else:
                numbered, *_ = self._number(start, stop)
                yield start, stop, np.concatenate([[False], kept[parts]])[numbered]

    def measure_slices(self) -> tuple[Numbers, Mask]:
        """Return each component's largest area in a slice, in voxels, and whether it reaches the first or last slice.

        A component that reaches the first or last slice may continue beyond it.

        Returns
        -------
        tuple of arrays
            Areas in voxels, and truth values; one for each component.
        """
        areas, at_ends = np.zeros(len(self.sizes), np.intp), np.zeros(len(self.sizes), np.bool_)
        for (start, stop), parts in zip(self._slabs, self._parts_in, strict=True):
            part_of = np.concatenate([[0], parts + 1])
            for z, plane in zip(range(start, stop), self._number(start, stop)[0], strict=True):
                if plane.any():
                    here = np.bincount(part_of[plane].ravel(), minlength=len(self.sizes) + 1)[1:]
                    areas = np.maximum(areas, here)
                    if z in (0, self._slabs[-1][1] - 1):
                        at_ends |= here > 0
        return areas, at_ends

    def _number(self, start: int, stop: int) -> tuple[Numbers, int, tuple[slice, ...]]:
        """Return a slab with its components numbered, their count, and the bounding box of all of them."""
        mask = self._read(start, stop)
        numbered = np.zeros(mask.shape, np.int32)
        around = tuple(_range(np.asarray(mask.any(axes))) for axes in ((1, 2), (0, 2), (0, 1)))
        # Most slabs are empty except for a corner, and finding components takes longer than finding that corner.
        found = ndimage.label(mask[around], self._structure, output=numbered[around])
        return numbered, int(found), around

    def _meet(self, one_YX: Numbers, next_YX: Numbers) -> Numbers:
        """Return which components of one slice touch which of the next: ``(pairs, 2)``."""
        base = int(next_YX.max()) + 1  # encodes a pair as one number, which sorts much faster
        rows, columns = one_YX.shape
        around = np.pad(next_YX, 1)
        pairs = []
        for y, x in np.argwhere(self._structure[2]):
            shifted = around[y : y + rows, x : x + columns]
            both = (one_YX > 0) & (shifted > 0)
            pairs.append(one_YX[both].astype(np.int64) * base + shifted[both])
        return np.stack(np.divmod(np.unique(np.concatenate(pairs)), base), axis=1)


def _range(hit: Mask) -> slice:
    """Return the range from the first to the last True value."""
    where = np.flatnonzero(hit)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, 0)
