"""The named data sets that ship with pocketzoo."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.core.errors import DataError
from pocketzoo.core.optional import require
from pocketzoo.plugins.tinynet import LABELS
from pocketzoo.zoo.catalog.hookspecs import hookimpl
from pocketzoo.zoo.catalog.specs import DatasetSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pocketzoo.zoo.catalog.dataset import Dataset

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
SEED = 0


def _digits() -> Dataset:
    """1,797 handwritten digits, 8 x 8 grey: scikit-learn's copy of the UCI test set (Alpaydin & Kaynak 1998)."""
    import numpy as np

    from pocketzoo.zoo.data.batches import from_arrays

    package = find_spec("sklearn")  # whose import takes seconds, and whose file is plain: 64 pixels and the digit
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if file is not None and file.is_file():
        rows = np.loadtxt(file, delimiter=",")
        images, target = rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    else:
        raw = require("sklearn.datasets", extra="demo").load_digits()
        images, target = raw.images, raw.target
    pixels = np.round(images * (255 / 16)).astype(np.uint8)  # stored as 0-16
    return from_arrays("digits", tuple(str(i) for i in range(10)), pixels, target.astype(np.int64), SEED)


def _fashion_mnist() -> Dataset:
    """70,000 images of clothing, 28 x 28 grey (Xiao et al. 2017, arXiv:1708.07747); 1 in 10 of train becomes val."""
    import numpy as np

    from pocketzoo.zoo.catalog.dataset import Dataset, Split, SplitName

    if not FASHION_MNIST.is_dir():
        raise DataError(f"Fashion-MNIST is not in {FASHION_MNIST}", "apt-get install dataset-fashion-mnist")
    x, y = _idx("train-images-idx3-ubyte.gz"), _idx("train-labels-idx1-ubyte.gz").astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(x))
    val, train = order[: len(x) // 10], order[len(x) // 10 :]
    test = Split(_idx("t10k-images-idx3-ubyte.gz"), _idx("t10k-labels-idx1-ubyte.gz").astype(np.int64))
    splits: dict[SplitName, Split] = {"train": Split(x[train], y[train]), "val": Split(x[val], y[val]), "test": test}
    return Dataset("fashion-mnist", LABELS, splits, SEED)


def _idx(name: str) -> npt.NDArray[np.uint8]:
    """An IDX file: two zero bytes, a type, the number of axes, their lengths as big-endian int32, then the values."""
    import numpy as np

    raw = gzip.decompress((FASHION_MNIST / name).read_bytes())
    shape = np.frombuffer(raw, ">i4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


@hookimpl
def pocketzoo_datasets() -> list[DatasetSpec]:
    return [
        DatasetSpec(
            name="digits",
            summary="1,797 handwritten digits of scikit-learn, 10 classes",
            license="CC-BY-4.0",
            load=_digits,
        ),
        DatasetSpec(
            name="fashion-mnist",
            summary="70,000 images of clothing, 10 classes (Debian's dataset-fashion-mnist)",
            license="MIT",
            load=_fashion_mnist,
        ),
    ]
