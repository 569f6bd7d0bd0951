"""Load torch's libraries without freezing the viewer."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def preload_torch() -> None:
    """Load the largest libraries of torch, so that the import that follows finds them loaded.

    An import holds Python's lock while the system loads a library, which takes 0.2 s or more for these; a window is
    frozen meanwhile. Called through ctypes, the system's own function lets other threads run. Does nothing on Windows.
    """
    spec = find_spec("torch") if os.name == "posix" and "torch" not in sys.modules else None
    if spec is None or spec.origin is None:
        return
    system = ctypes.CDLL(None)
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "libtorch_cuda.so"):
        library = Path(spec.origin).parent / "lib" / name
        if library.exists():
            system.dlopen(os.fsencode(library), os.RTLD_NOW)  # the import reports a library that cannot be loaded
