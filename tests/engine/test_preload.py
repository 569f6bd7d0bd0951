import subprocess
import sys

import pytest

CODE = """
import sys, threading, time
from napari_braintumor.engine.preload import preload_torch
silence, last, done = 0.0, time.perf_counter(), threading.Event()
def load():
    preload_torch()
    done.set()
threading.Thread(target=load).start()
while not done.is_set():
    time.sleep(0.002)
    now = time.perf_counter()
    silence, last = max(silence, now - last), now
maps = open("/proc/self/maps").read()
assert "libtorch_cpu" in maps, "not loaded"
assert "torch" not in sys.modules
import torch
assert torch.ones(2).sum() == 2
print(silence)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Only there can it be seen what is loaded.")
def test_torch_s_library_is_loaded_while_other_threads_run() -> None:
    silences = []
    for _ in range(3):  # another program may have had the cores meanwhile
        result = subprocess.run([sys.executable, "-c", CODE], check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        silences.append(float(result.stdout))
        if silences[-1] < 0.15:
            break
    assert min(silences) < 0.15
