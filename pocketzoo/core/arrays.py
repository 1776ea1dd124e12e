"""Type aliases of the arrays that modules exchange."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Arrays = Mapping[str, npt.NDArray[Any]]  # the inputs or outputs of a model by their names
ImageLike = Path | npt.NDArray[np.uint8]  # a file, or pixels (H, W) or (H, W, 3)
