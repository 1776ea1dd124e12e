"""Folders that ``datasets`` saved: nothing outside of them is read, no connection is opened, bad rows are skipped."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.catalog.specs import InputSpec
from pocketzoo.zoo.data.batches import Batches, Skipped
from pocketzoo.zoo.data.load_data import load_data

datasets = pytest.importorskip("datasets")
SPEC = InputSpec(shape=("n", 3, 8, 8), mean=(0.4,) * 3, std=(0.2,) * 3, resize=9)


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def png(seed=0):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


def save(folder, cells, labels=None):
    """Cells as they are: the library itself would put files into the data set."""
    kind = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    rows = datasets.Dataset.from_dict(
        {"image": cells, "label": labels or ["ab"[i % 2] for i in range(len(cells))]},
        datasets.Features({"image": kind, "label": datasets.Value("string")}),
    )
    rows.save_to_disk(folder)
    facts = json.loads((folder / "dataset_info.json").read_text())
    facts["features"]["image"] = {"_type": "Image"}
    (folder / "dataset_info.json").write_text(json.dumps(facts))
    return folder


def whole(data, skipped=None):
    return sum(len(y) for name in SPLITS for _, y in Batches(data.split(name), SPEC, skipped=skipped))


def good(count=10):
    return [{"bytes": png(i), "path": None} for i in range(count)]


@pytest.mark.parametrize("way", ["absolute", "up", "link", "server", "archive", "file url", "nothing", "damaged"])
def test_a_cell_that_leads_elsewhere_is_named_or_skipped(way, tmp_path, refused):
    (tmp_path / "secret.png").write_bytes(png())
    path = {
        "absolute": str(tmp_path / "secret.png"),
        "up": "../secret.png",
        "link": "inside.png",
        "server": "http://127.0.0.1:9/x.png",
        "archive": f"zip://x.png::{tmp_path}/a.zip",
        "file url": f"file://{tmp_path}/secret.png",
        "nothing": None,
        "damaged": None,
    }[way]
    cell = {"bytes": b"no image" if way == "damaged" else None, "path": path}
    saved = save(tmp_path / "saved", [*good(9), cell])
    if way == "link":
        (saved / "inside.png").symlink_to(tmp_path / "secret.png")
        with refused(DataError, "inside.png is a link that leads out of the data set"):
            load_data(saved)
        return
    with refused(DataError, "9 of ", hint="save the data set"):
        whole(load_data(saved))
    skipped = Skipped()
    assert whole(load_data(saved, skipped=skipped), skipped) == 9
    assert len(skipped.names) == 1
    assert next(iter(skipped.names)).startswith("image 9 of ")


def test_a_file_of_the_folder_is_read(tmp_path):
    saved = save(tmp_path / "saved", [*good(9), {"bytes": None, "path": "images/x.png"}])
    (saved / "images").mkdir()
    (saved / "images/x.png").write_bytes(png(9))
    assert whole(load_data(saved)) == 10


@pytest.mark.parametrize("key", ["_data_files", "_indices_data_files"])
@pytest.mark.parametrize("way", ["absolute", "up"])
def test_tables_elsewhere_are_refused(way, key, tmp_path, refused):
    saved, other = save(tmp_path / "saved", good()), save(tmp_path / "other", good())
    (arrow,) = other.glob("*.arrow")
    facts = json.loads((saved / "state.json").read_text())
    facts[key] = [{"filename": str(arrow) if way == "absolute" else f"../other/{arrow.name}"}]
    (saved / "state.json").write_text(json.dumps(facts))
    with refused(DataError, "state.json names", "outside of the data set"):
        load_data(saved)


def test_a_table_that_is_a_link_is_refused(tmp_path, refused):
    saved, other = save(tmp_path / "saved", good()), save(tmp_path / "other", good())
    (arrow,) = saved.glob("*.arrow")
    arrow.unlink()
    arrow.symlink_to(next(other.glob("*.arrow")))
    with refused(DataError, "is a link that leads out of the data set"):
        load_data(saved)


@pytest.mark.parametrize(
    "split",
    ["../other", "/tmp", "zip::http://127.0.0.1:9/x", "train::http://127.0.0.1:9", "http://127.0.0.1:9/x", "a::b"],
)
def test_splits_elsewhere_are_refused(split, tmp_path, refused):
    save(tmp_path / "saved" / "train", good())
    save(tmp_path / "other", good())
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", split]}))
    with refused(DataError, "dataset_dict.json names", "outside of the data set"):
        load_data(tmp_path / "saved")


def test_a_folder_that_is_reached_by_a_link_is_itself(tmp_path):
    (tmp_path / "link").symlink_to(save(tmp_path / "saved", good()))
    assert whole(load_data(tmp_path / "link")) == 10


@pytest.mark.parametrize("label", ["", "nan", None])
def test_a_row_of_images_without_a_label_is_named_or_skipped(label, tmp_path, refused):
    saved = save(tmp_path / "saved", good(), [label if i == 3 else "ab"[i % 2] for i in range(10)])
    with refused(DataError, "row 4 of ", "lacks its label", hint="--skip-bad"):
        load_data(saved)
    skipped = Skipped()
    data = load_data(saved, skipped=skipped)
    assert (data.labels, whole(data)) == (("a", "b"), 9)
    assert len(skipped.names) == 1


def test_a_format_that_was_saved_is_not_taken_over(tmp_path):
    rows = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(10)], "label": [i % 2 for i in range(10)]})
    rows.with_format("numpy").save_to_disk(tmp_path / "saved")
    data = load_data(tmp_path / "saved")
    assert data.labels == ("0", "1")


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_no_connection_is_opened(tmp_path):
    cells = [*good(9), {"bytes": None, "path": "http://127.0.0.1:9/x.png"}]
    saved = save(tmp_path / "saved", cells)
    code = (
        "import sys\n"
        "from pocketzoo.zoo.data.batches import Batches, Skipped\n"
        "from pocketzoo.zoo.data.load_data import load_data\n"
        "from pocketzoo.zoo.catalog.specs import InputSpec\n"
        "spec = InputSpec(shape=('n', 3, 8, 8), mean=(.4,) * 3, std=(.2,) * 3, resize=9)\n"
        "skipped = Skipped()\n"
        "data = load_data(sys.argv[1], skipped=skipped)\n"
        "print(sum(len(y) for s in data.splits.values() for _, y in Batches(s, spec, skipped=skipped)))\n"
    )
    trace = tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=socket,connect", "-o", trace, sys.executable, "-c", code, saved],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "9"
    assert "AF_INET" not in trace.read_text()
