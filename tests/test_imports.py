"""What a new Python loads when it first imports something of ours. One child does all of it, from light to heavy."""

from __future__ import annotations

import json
import subprocess
import sys

from npe2 import PluginManifest

CHILD = """
import json, sys
steps, loaded = json.load(sys.stdin), []
for step in steps:
    before = set(sys.modules)
    exec(step["code"], {})
    loaded.append(sorted(set(step["without"]) & (set(sys.modules) - before)))
print("\\n" + json.dumps(loaded))
"""
HELP = """
import sys
from napari_braintumor.cli import app
sys.argv = ["napari-braintumor", "--help"]
try:
    app()
except SystemExit:
    pass
"""


def test_what_is_imported_first_loads_nothing_that_takes_seconds() -> None:
    commands = PluginManifest.from_distribution("napari-braintumor").contributions.commands
    heavy = ["torch", "monai", "openvino"]
    steps = [
        (
            "from napari_braintumor.engine.files.sample import sample_folder; sample_folder()",
            [*heavy, "napari", "nibabel"],
        ),
        ("import napari_braintumor.engine", [*heavy, "napari"]),
        ("import napari_braintumor.engine.measuring.metrics", [*heavy, "napari"]),
        (HELP, [*heavy, "napari"]),
        *(
            (f"import {name}", heavy)
            for name in sorted({command.python_name.partition(":")[0] for command in commands})
        ),
    ]
    given = json.dumps([{"code": code, "without": without} for code, without in steps])
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=given, capture_output=True, text=True, check=True, timeout=120
    )
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert {code: names for (code, _), names in zip(steps, loaded, strict=True) if names} == {}
