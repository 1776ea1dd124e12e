"""Looking around starts nothing heavy: a fresh interpreter each time, and what it imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "onnx", "onnxruntime", "onnxscript", "tensorrt", "tensorrt_rtx", "numpy", "safetensors",
    "huggingface_hub", "PIL", "sklearn", "rich", "pocketzoo.core.moved", "pocketzoo.zoo.bundles.format_1",
)  # fmt: skip

COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "list": ["list"],
    "list glob": ["list", "tiny*"],
    "list of a kind": ["list", "--kind", "head"],
    "list as JSON": ["list", "--json"],
    "plugins": ["plugins"],
    "plugins as JSON": ["plugins", "--json"],
    "info of a backbone": ["info", "tinynet"],
    "info of a backbone as JSON": ["info", "tinynet", "--json"],
    "info of a compressor": ["info", "prune"],
    "info of a target": ["info", "tensorrt"],
    **{f"help of {name}": [name, "--help"] for name in
       ("list", "info", "plugins", "new-plugin", "doctor", "fit", "eval", "compress", "export", "bench",
        "predict", "report", "verify", "demo")},
}  # fmt: skip

# Runs the command line as the installed script does, then says what of HEAVY is loaded.
SCRIPT = """
import json, sys
from pocketzoo.cli.main import cli
try:
    cli(sys.argv[2:], prog_name="pocketzoo")
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps([name for name in json.loads(sys.argv[1]) if name in sys.modules]))
"""


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=list(COMMANDS))
def test_command_loads_nothing_heavy(arguments):
    done = python(SCRIPT, json.dumps(HEAVY), *arguments)
    assert done.returncode == 0, done.stderr
    *output, loaded = done.stdout.splitlines()
    assert json.loads(loaded) == []
    assert "".join(output).strip(), "it printed nothing"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "code",
    [
        "import pocketzoo",
        "import pocketzoo; dir(pocketzoo)",
        "import pocketzoo; pocketzoo.hookimpl",
        "import pocketzoo; pocketzoo.Registry",
        "import pocketzoo; pocketzoo.compress; pocketzoo.plugins",
        "import pocketzoo; pocketzoo.list()",
        "import pocketzoo; pocketzoo.list('*net*', 'backbone')",
        "import pocketzoo; pocketzoo.plugins()",
        "import pocketzoo; pocketzoo.info('tinynet')",
        "import pocketzoo.compress.configs, pocketzoo.compress.plans, pocketzoo.zoo.catalog.specs",
        "import pocketzoo.zoo.bundles.bundle",
        "from pocketzoo.compress.pipeline.recipe import read_recipe",
    ],
)
def test_looking_around_in_python_loads_nothing_heavy(code):
    done = python(f"{code}\nimport json, sys\nprint([n for n in {HEAVY!r} if n in sys.modules])")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_int8_of_a_graph_needs_no_torch():
    """Importing it takes 190 MB, a third of what quantising EfficientNet-Lite0 may take."""
    code = (
        "import pocketzoo.compress.pipeline.compress_model\n"
        "import pocketzoo.compress.quantization.int8, pocketzoo.compress.quantization.mixed_precision"
    )
    done = python(f"{code}\nimport sys; print('torch' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_importing_pocketzoo_loads_none_of_its_modules():
    done = python("import sys, pocketzoo; print([n for n in sys.modules if n.startswith('pocketzoo.')])")
    assert done.stdout == "[]\n"


def test_importing_pocketzoo_changes_nothing_outside_itself():
    done = python(
        "import logging, warnings, os\n"
        "before = (list(logging.root.handlers), list(warnings.filters), dict(os.environ), os.getcwd())\n"
        "import pocketzoo, pocketzoo.cli.main, pocketzoo.zoo.catalog.registry\n"
        "print(before == (list(logging.root.handlers), list(warnings.filters), dict(os.environ), os.getcwd()))"
    )
    assert done.stdout == "True\n", done.stderr


def test_the_module_runs_like_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "pocketzoo", "--version"], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pocketzoo ")
