import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from napari_braintumor.engine.events import BatchDone
from napari_braintumor.engine.training import processes
from napari_braintumor.engine.training.processes import SharedBatchNorm


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def start(command: list[str], rank: int, port: int) -> subprocess.Popen:
    environment = {
        **os.environ,
        **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"},
        **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
    }
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_both(command: list[str]) -> None:
    port = free_port()
    children = [start(command, rank, port) for rank in (0, 1)]
    for child in children:
        output, _ = child.communicate(timeout=240)
        assert child.returncode == 0, output


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_processes_with_batches_of_b_do_what_one_does_with_2b(toy_plan, tmp_path: Path, batch_norm: bool) -> None:
    options = {"width": 4, "dropout": 0.0, "batch_norm": batch_norm}
    update = {"options": options, "epochs": 2, "steps_per_epoch": 10, "averaging": 0.9}
    update |= {"optimizer": "sgd", "learning_rate": 1e-3}
    plan = toy_plan.model_copy(update=update)
    for name, size in (("one", 6), ("two", 3)):
        here = plan.model_copy(update={"output": tmp_path / name, "batch_size": size})
        (tmp_path / f"{name}.json").write_text(here.model_dump_json())
    command = [sys.executable, "-m", "napari_braintumor", "train"]
    subprocess.run([*command, str(tmp_path / "one.json")], check=True, capture_output=True, timeout=240)
    run_both([*command, str(tmp_path / "two.json")])

    from safetensors.torch import load_file

    one, two = (load_file(tmp_path / name / "toy" / "checkpoint.safetensors") for name in ("one", "two"))
    for key, tensor in one.items():
        if key.startswith("network/") and tensor.is_floating_point():
            # Running statistics are sums over thousands of values in float32, which round in another order.
            tolerance = 1e-4 if "running" in key else 1e-5
            assert torch.allclose(tensor, two[key], rtol=tolerance, atol=tolerance), key

    def losses(name: str) -> list[float]:
        lines = (tmp_path / name / "toy" / "events.jsonl").read_text().splitlines()
        return [event["loss"] for event in map(json.loads, lines) if event["event"] == BatchDone.__name__]

    assert len(losses("two")) == 20  # only the first process writes
    assert losses("two") == pytest.approx(losses("one"), abs=1e-5)


def test_shared_batch_norm_alone_is_batch_norm() -> None:
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    shared.__class__ = SharedBatchNorm
    x = torch.randn(4, 3, 5, 5)
    assert torch.equal(plain(x), shared(x))
    assert torch.equal(plain.running_var, shared.running_var)


def test_alone_nothing_is_shared() -> None:
    x = torch.ones(2)
    assert processes.sum_across(x) is x
    assert processes.count() == 1
    assert processes.rank() == 0
    assert processes.any_of(True, torch.device("cpu"))
    with processes.join(torch.device("cpu")):
        assert processes.count() == 1


def test_every_process_takes_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert processes.assign_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert processes.assign_device(torch.device("cpu")) == torch.device("cpu")
