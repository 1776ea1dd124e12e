"""What was left out, and which columns were read, from a table through fit, eval and compress: in what each writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from told import Told

from pocketzoo.compress.configs import Int8Config
from pocketzoo.compress.pipeline.compress_model import compress
from pocketzoo.core.errors import DataError
from pocketzoo.measure.evaluate import evaluate
from pocketzoo.train.fit import fit
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.bundles.bundle import read_bundle
from pocketzoo.zoo.catalog.processor_configs import DataColumns


def table(path: Path, seed: int, label: str = "kind", bad: tuple[int, ...] = ()) -> Path:
    """Points in two classes, which another column, called as labels usually are, turns round."""
    rows = np.random.default_rng(seed).normal(size=(60, 2))
    lines = [f"height,{label},mass,label"]
    for i, (x, y) in enumerate(rows.tolist()):
        lines.append(f"{'tall' if i in bad else x},{'ab'[x > 0]},{y},{'ba'[x > 0]}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def bundle(registry, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    data = table(folder / "train.csv", 0, bad=(3, 40))
    text = data.read_text().replace(",label\n", ",noise\n").replace("noise", "other", 1)
    data.write_text("\n".join(line.rsplit(",", 1)[0] for line in text.splitlines()) + "\n")  # without the other labels
    with pytest.raises(DataError, match=r"line 5 of .*train.csv has no number in height: 'tall'"):
        fit("mlp", folder / "m", data=f"{data}?label=kind", registry=registry)
    return fit(
        "mlp", folder / "m", data=f"{data}?label=kind", epochs=30, learning_rate=0.05, skip_bad=True, registry=registry
    )


def test_fit_keeps_what_it_read_and_what_it_left_out(bundle):
    manifest = bundle.manifest
    assert manifest.data_columns == DataColumns(labels=("kind",))
    assert manifest.metrics["skipped"] == 2
    left = manifest.provenance["data"]["skipped"]
    assert [name.split(" of ")[0] for name in left] == ["line 5", "line 42"]
    assert manifest.metrics["test_accuracy"] > 0.7


def test_other_tables_are_read_by_the_same_columns(bundle, registry, tmp_path, refused):
    data = table(tmp_path / "test.csv", 1, bad=(7,))
    with refused(DataError, "line 9 of"):
        evaluate(bundle.path, data=data, registry=registry)
    scores = evaluate(bundle.path, data=data, skip_bad=True, registry=registry)
    assert scores["accuracy"] > 0.7  # by the column "label" it would be below 0.3
    assert scores["skipped"] == 1
    assert scores["skipped_samples"] == [f"line 9 of {data}"]
    assert evaluate(bundle.path, data=f"{data}?label=label", skip_bad=True, registry=registry)["accuracy"] < 0.3
    assert len(predict(bundle.path, [table(tmp_path / "more.csv", 2)], registry=registry)) == 60


def test_a_table_without_the_column_is_said(bundle, registry, tmp_path, refused):
    told = Told()
    data = table(tmp_path / "test.csv", 1, label="sort")
    scores = evaluate(bundle.path, data=data, registry=registry, progress=told)
    assert scores["accuracy"] < 0.3
    assert any("'kind', which the model was fitted to: the labels are read from 'label'" in said for said in told.said)
    bare = tmp_path / "bare.csv"
    bare.write_text("height,mass,sort\n" + "1,2,a\n3,4,b\n" * 10)
    with refused(DataError, "has no targets", hint="its columns are height, mass, sort: name that of labels"):
        evaluate(bundle.path, data=bare, registry=registry)
    bare.write_text("height,mass,kind\n" + "1,2,a\n3,4,c\n" * 10)
    with refused(DataError, "bare, column 'kind', has classes unknown to the model: c"):
        evaluate(bundle.path, data=bare, registry=registry)


def test_compress_notes_what_it_left_out(bundle, registry, tmp_path):
    data = table(tmp_path / "more.csv", 3, bad=(0, 9, 50))
    out = tmp_path / "out"
    compress(bundle.path, out, steps=[Int8Config()], data=data, accept=True, keep_slower=True, skip_bad=True,
             registry=registry)  # fmt: skip
    manifest = read_bundle(out).manifest
    noted = manifest.provenance["calibration"]
    assert noted["skipped"] == 3
    assert [name.split(" of ")[0] for name in noted["skipped_samples"]] == ["line 2", "line 11", "line 52"]
    assert noted["samples"] == 34  # 60% of 57, none of which was skipped
    assert manifest.data_columns == bundle.manifest.data_columns
    plain = json.loads((out / "pocketzoo.json").read_text())
    assert plain["data_columns"] == {"text": "", "labels": ["kind"]}
