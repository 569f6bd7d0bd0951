"""The example for SLURM in docs/cohorts.md, run as it stands there, with workers of this machine in place of jobs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from cohorts import write_cohort
from napari_braintumor.cli import app

pytest.importorskip("distributed")

DOCS = Path(__file__).parents[3] / "docs" / "cohorts.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL) if DOCS.exists() else []

KNOWN = {"queue", "walltime", "cores", "processes", "job_cpu", "memory"}
"""Of dask_jobqueue.SLURMCluster, https://jobqueue.dask.org/en/latest/generated/dask_jobqueue.SLURMCluster.html."""

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.skipif(not EXAMPLES, reason="docs are not in the source distribution"),
    pytest.mark.skipif(sys.platform == "win32", reason="the example is for POSIX"),
]


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked of a SLURMCluster that starts two workers here."""
    from distributed import LocalCluster

    asked: list[dict[str, Any]] = []

    def start(**options: Any) -> LocalCluster:
        asked.append(options)
        return LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None, silence_logs=50)

    module = ModuleType("dask_jobqueue")
    module.SLURMCluster = start  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_jobqueue", module)
    return asked


@pytest.mark.slow
def test_the_example_segments_a_study_on_the_workers_of_a_queue(tmp_path, toy_model, jobs, monkeypatch) -> None:
    write_cohort(tmp_path / "study", 4, broken=1)
    command = tmp_path / "bin" / "napari-braintumor"
    command.parent.mkdir()
    ours = f'"{sys.executable}" -P -m napari_braintumor "$@" --model "{toy_model}" --device cpu'
    command.write_text(f"#!/bin/sh\nexec {ours}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    found: dict[str, Any] = {}
    exec(EXAMPLES[0].replace("/shared", str(tmp_path)).replace("maximum=20", "maximum=2"), found)
    assert set(jobs[0]) == KNOWN
    assert found["done"].returncode == 1  # one case failed
    output = tmp_path / "study_tumors"
    assert {path.name for path in output.glob("*.nii.gz")} == {f"p0{number}_tumor.nii.gz" for number in range(3)}
    assert (output / "report.html").is_file()

    # Copies that were sent back: the command is repeated where nothing was segmented.
    sent = tmp_path / "sent"
    shutil.copytree(output, sent, ignore=shutil.ignore_patterns("*.csv", "*.html"))
    options = ["--model", str(toy_model), "--device", "cpu", "--json"]
    ran = CliRunner().invoke(app, ["segment", str(tmp_path / "study"), "-o", str(sent), *options])
    last = json.loads(ran.stdout.splitlines()[-1])
    assert (last["segmented"], last["reused"], last["failed"]) == (0, 3, 1)
    assert (sent / "report.html").read_bytes() == (output / "report.html").read_bytes()


def test_what_jobs_do_with_copies_is_a_script_that_a_shell_understands() -> None:
    found: dict[str, Any] = {}
    exec(EXAMPLES[1], found)
    script = "\n".join((*found["copying"], "true"))
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, check=True)
    assert script.count("/scratch/study/") == 2
    assert script.count("/scratch/study_tumors/") == 2
