"""Keep the libraries that models run on from calling home: they are told not to before they are imported.

onnxruntime 1.31 looks up a host for its telemetry half a minute after the first session, and keeps a device's id below
the home folder, whether its events are disabled or not. Only this variable, which it reads while it is loaded, keeps it
from both. A value that the user has set stands.
"""

from __future__ import annotations

import os
import sys

ONNXRUNTIME = "ORT_DISABLE_TELEMETRY"
VARIABLES = {"onnxruntime": ONNXRUNTIME}  # package -> what it reads


def switch_off(package: str) -> None:
    """Tell a package that is about to be imported; one that is imported already has decided, and is left as it is."""
    variable = VARIABLES.get(package)
    if variable and package not in sys.modules and not os.environ.get(variable):
        os.environ[variable] = "1"


def onnxruntime_is_quiet() -> bool:
    """Whether onnxruntime was told to be, in time, in one of the words that it takes for yes."""
    return os.environ.get(ONNXRUNTIME, "").lower() in ("1", "true", "yes")
