"""Build this commit, install its wheel into an empty environment, run the demo from there, and check what PyPI shows.

Usage: python tools/check_wheel.py
"""

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PROGRAMS = "Scripts" if os.name == "nt" else "bin"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        dist, empty = work / "dist", work / "empty"
        # Without --wheel the wheel is made from the source distribution, so that both are known to be complete.
        run([sys.executable, "-m", "build", "--outdir", dist, ROOT], ROOT)
        venv.create(empty, with_pip=True)
        (wheel,) = dist.glob("*.whl")
        install(empty, wheel)
        run([empty / PROGRAMS / "napari-braintumor", "demo", "--output", work / "out"], work)
        made = sorted(path.name for path in (work / "out").iterdir())
        if not any(name.endswith(".nii.gz") for name in made):
            raise SystemExit(f"The demo made {made}, and no labels.")
        install(empty, "twine")
        run([empty / PROGRAMS / "twine", "check", "--strict", *dist.iterdir()], work)
        print(f"{wheel.name} runs the demo in an empty environment: {', '.join(made)}")


def install(environment: Path, what: str | Path) -> None:
    python = environment / PROGRAMS / "python"
    run([python, "-m", "pip", "install", "--quiet", "--constraint", CONSTRAINTS, what], environment)


def run(command: Sequence[str | Path], folder: Path) -> None:
    """Run a command in a folder, as a user without the sources would."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run(command, cwd=folder, env=environment, check=True)


if __name__ == "__main__":
    main()
