"""pydicom and GDCM without their complaints: these repeat what headers hold, and so may name a patient."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.errors import BytesLengthException, InvalidDicomError

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises for files that are broken."""

_ONE_AT_A_TIME = threading.RLock()
"""Python's warning filters belong to the whole process."""


@contextmanager
def unheard() -> Iterator[None]:
    """Silence pydicom's warnings and log, and GDCM's messages on the console, while a file is read."""
    log = logging.getLogger("pydicom")
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, log.disabled = log.disabled, True
        try:
            yield
        finally:
            log.disabled = before


def silence_gdcm() -> None:
    """Stop GDCM from writing to the console; it has no other way of reporting, and errors still arrive."""
    import gdcm  # type: ignore[import-untyped]

    gdcm.Trace.DebugOff()
    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
