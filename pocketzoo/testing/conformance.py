"""Run the conformance suite from a plugin's own tests."""

from __future__ import annotations

import subprocess
import sys


def check_conformance(plugin: str) -> None:
    """Check what pocketzoo relies on, for everything that a plugin declares, by pytest in a process of its own.

    ``plugin`` is the name of its entry point. It takes ``pip install "pocketzoo[testing]"``.

    Raises:
        AssertionError: a check failed, or none ran; the message is what pytest printed.
    """
    command = [sys.executable, "-m", "pytest", "--pyargs", "pocketzoo.testing", "--plugin", plugin, "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or " passed" not in done.stdout:
        raise AssertionError(done.stdout + done.stderr)
