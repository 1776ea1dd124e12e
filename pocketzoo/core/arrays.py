"""Type aliases of the arrays that modules exchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
ImageLike = Path | npt.NDArray[np.uint8]  # a file, or pixels (H, W) or (H, W, 3)
