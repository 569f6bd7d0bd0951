"""Read all pages of a TIFF file as one stack, or raise an error that says what it contains instead."""

from __future__ import annotations

from collections import defaultdict
from math import prod
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_braintumor.engine.errors import DataError

_MOST_PACKED = 1400
"""The highest plausible compression ratio of a page; blank pages reach 1000."""

_MOST_PAGES, _LONGEST_SIDE = 100_000, 100_000

_REMEDY = "Expected one stack of slices of the same size and type. Save the stack you need as a separate file."


def read_whole(tiff: tifffile.TiffFile, path: Path) -> tuple[NDArray[Any], str]:
    """Read every page of a file as one array, leaving out only thumbnails (smaller copies of the other images).

    Parameters
    ----------
    tiff
        The open file.
    path
        The file's path, for messages.

    Returns
    -------
    tuple
        The values as stored, with large values bright; and tifffile's axis letters, with Z for pages that were
        appended one by one.

    Raises
    ------
    DataError
        If the pages do not form a single stack, some are in files that are missing, or the file declares more data
        than it can contain.
    """
    _check_declared(tiff)
    stacks = list(tiff.series)
    if not stacks:
        raise ValueError("it has no pages")
    _check_all_there(tiff, stacks, path)
    stacks = _without_thumbnails(stacks)
    kinds = {(stack.shape, stack.axes, str(stack.dtype)) for stack in stacks}
    appended = len(kinds) == 1 and not tiff.is_ome and _slices(stacks[0]) == 1
    if len(stacks) > 1 and not appended:
        raise DataError(f"'{path.name}' holds {_list(stacks)}. {_REMEDY}")
    _check_sizes(stacks)
    arrays = [_bright_is_large(stack.asarray(), stack.keyframe) for stack in stacks]
    if arrays[0].ndim != len(stacks[0].axes):
        raise ValueError(f"its axes {stacks[0].axes} are not those of its values {arrays[0].shape}")
    if len(arrays) == 1:
        return arrays[0], stacks[0].axes
    return np.stack(arrays), "Z" + stacks[0].axes.replace("Z", "Q")


def _check_declared(tiff: tifffile.TiffFile) -> None:
    """Reject an OME description of more or larger pages than any scan has, before tifffile builds lists of them."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return
    for element in ElementTree.fromstring(tiff.ome_metadata).iter():
        pages = prod(abs(int(element.get(name) or 1)) for name in ("SizeZ", "SizeC", "SizeT", "PlaneCount"))
        side = max(abs(int(element.get(name) or 1)) for name in ("SizeX", "SizeY"))
        if pages > _MOST_PAGES or side > _LONGEST_SIDE:
            raise ValueError(f"it declares {pages:,} pages of up to {side:,} pixels along a side")


def _check_all_there(tiff: tifffile.TiffFile, stacks: list[Any], path: Path) -> None:
    """Raise an error if some pages of a file are missing, or are in none of the stacks that it describes."""
    pages = [page for stack in stacks for page in stack.pages]
    if any(page is None for page in pages):
        raise DataError(
            f"'{path.name}' is one part of a scan in several files, and {sum(page is None for page in pages)} of its "
            f"{len(pages)} slices are missing. Copy the other files next to it, or save the scan as one file."
        )
    reduced = [page for stack in stacks for level in stack.levels[1:] for page in level.pages]
    described = {page.index for page in (*pages, *reduced) if page is not None and page.parent is tiff}
    beyond = len(tiff.pages) - len(described)
    if beyond > 0:
        raise DataError(f"'{path.name}' holds {beyond} pages beyond the {len(pages)} that it describes. {_REMEDY}")


def _without_thumbnails(stacks: list[Any]) -> list[Any]:
    """Leave out single pictures that are marked as reduced, or are at most half as wide and high as the others."""
    by_size: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for stack in stacks:
        by_size[_size(stack)].append(stack)
    main = max(by_size, key=lambda size: (sum(map(_slices, by_size[size])), size))

    def is_thumbnail(stack: Any) -> bool:
        if _size(stack) == main or len(by_size[_size(stack)]) > 1 or _slices(stack) > 1:
            return False
        half = all(2 * small <= large for small, large in zip(_size(stack), main, strict=True))
        return half or bool(stack.keyframe.is_reduced)

    return [stack for stack in stacks if not is_thumbnail(stack)]


def _size(stack: Any) -> tuple[int, int]:
    return int(stack.keyframe.imagelength), int(stack.keyframe.imagewidth)


def _slices(stack: Any) -> int:
    """Return how many slices a stack has, whatever the names of its axes other than those of a picture."""
    return prod(n for n, axis in zip(stack.shape, stack.axes, strict=True) if axis not in "YXSC")


def _list(stacks: list[Any]) -> str:
    kinds: dict[str, int] = defaultdict(int)
    for stack in stacks:
        kinds[f"{' x '.join(map(str, stack.shape))} ({stack.axes}) of {stack.dtype}"] += 1
    return f"{len(stacks)} images: " + ", ".join(f"{n} of {kind}" for kind, n in list(kinds.items())[:4])


def _check_sizes(stacks: list[Any]) -> None:
    """Reject sizes that cannot fit in files of their length, before anything is allocated."""
    declared = sum(prod(stack.shape) * stack.dtype.itemsize for stack in stacks)
    files = {id(page.parent): page.parent.filehandle.size for stack in stacks for page in stack.pages}
    first = stacks[0].keyframe
    whole_bytes = all(stack.keyframe.bitspersample % 8 == 0 for stack in stacks)
    packed = any(stack.keyframe.compression != 1 for stack in stacks)
    most = sum(files.values()) * (_MOST_PACKED if packed else 1 if whole_bytes else 8 * first.dtype.itemsize)
    if declared > most:
        raise ValueError(f"it declares {declared:,} bytes, more than it can contain")


def _bright_is_large(array: NDArray[Any], keyframe: Any) -> NDArray[Any]:
    """Invert the values if the file says that 0 is white."""
    if keyframe.photometric != tifffile.PHOTOMETRIC.MINISWHITE:
        return array
    if array.dtype.kind != "u":
        raise ValueError("0 stands for white, but the value for black is not known")
    most = np.array(2**keyframe.bitspersample - 1, array.dtype)
    turned: NDArray[Any] = most - array
    return turned
