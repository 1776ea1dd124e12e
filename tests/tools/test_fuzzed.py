"""What the fuzzer found: each was another exception than one of ours."""

from __future__ import annotations

import json
import random
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import campaign_readers  # noqa: E402
from campaign_fuzz import variant  # noqa: E402
from campaign_readers import CONFIGS, IMAGE_SETTINGS, READERS, TOKENIZER  # noqa: E402

from pocketzoo.core.errors import BundleError, DataError, HubIntegrityError, PocketzooError, UnsupportedModelError  # noqa: E402
from pocketzoo.zoo.catalog.specs import TextSpec  # noqa: E402
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder  # noqa: E402

VISION = CONFIGS[1]


def as_read(name: str, data: bytes, folder: Path) -> object:
    return READERS[name](folder)[1](data)


@pytest.mark.parametrize("changes", [{"patch_size": 0}, {"image_size": float("inf")}, {"image_size": 1e308}], ids=repr)
def test_a_config_with_sizes_that_are_none(changes, tmp_path):
    with pytest.raises(UnsupportedModelError):
        as_read("config", json.dumps({"config": VISION | changes, "image": IMAGE_SETTINGS}).encode(), tmp_path)


@pytest.mark.parametrize("field", ["downloads", "safetensors"])
def test_a_hub_that_counts_to_infinity(field, tmp_path):
    answer = json.loads(READERS["listing"](tmp_path)[0][0])
    answer[field] = {"total": float("inf")} if field == "safetensors" else float("inf")
    with pytest.raises(HubIntegrityError, match="is not one of a Hub"):
        as_read("listing", json.dumps(answer).encode(), tmp_path)


def test_a_graph_with_a_name_that_is_not_utf8(tmp_path):
    graph = (campaign_readers.FROZEN / "agent" / "bundle" / "model.onnx").read_bytes()
    import onnx

    name = onnx.load_model_from_string(graph).graph.input[0].name.encode()
    with pytest.raises(BundleError):
        as_read("onnx", graph.replace(name, b"\xe1" * len(name)), tmp_path)


def test_a_tokenizer_whose_vocabulary_lacks_what_it_needs(tmp_path):
    lacking = json.loads(json.dumps(TOKENIZER))
    del lacking["model"]["vocab"]["[UNK]"]
    with pytest.raises(BundleError, match=r"is not a tokenizer: .*\[UNK\]"):
        as_read("tokenizer", json.dumps(lacking).encode(), tmp_path)


def test_a_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(TOKENIZER))
    spec = TextSpec(vocabulary=4, pad=1, max_length=16)
    encoder = TextEncoder(spec, {spec.tokenizer: path})
    for call in (encoder.masked, encoder.spans, encoder.whole, encoder.cut):
        with pytest.raises(DataError, match="a text is not UTF-8"):
            call(["a", "b \ud83d"])


def test_a_manifest_of_before_whose_shape_is_of_texts(tmp_path):
    data = json.loads(READERS["manifest"](tmp_path)[0][0])
    data["processor"] = {"name": "", "config": {"shape": ["N", "cpu"], "layout": "", "dtype": "float32"}}
    with pytest.raises(PocketzooError):
        as_read("manifest", json.dumps(data).encode(), tmp_path)


ROWS = [
    '{"text": "a", "label": {"a": 1}}\n',
    '{"text": "a", "label": [1]}\n{"text": "b", "label": [1, 2]}\n',
    '{"u": 1e300, "label": 1}\n' * 5,
]


@pytest.mark.parametrize("rows", ROWS)
def test_targets_and_values_that_are_no_numbers(rows, tmp_path):
    from pocketzoo.zoo.data.load_data import load_data

    path = tmp_path / "x.jsonl"
    path.write_text(rows)
    with pytest.raises(DataError):
        load_data(path, targets="numbers")


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_parquet_that_pyarrow_refuses_by_errors_of_its_own(tmp_path):
    """Of types that it does not implement, say, which is no ValueError."""
    valid, read = READERS["parquet"](tmp_path)
    for number in range(300, 400):
        chance = random.Random(f"1 parquet {number}")
        read(variant(chance.choice(valid), chance))


@pytest.mark.slow
def test_the_command_line_ends_with_codes_that_are_documented(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    valid, read = READERS["command"](tmp_path)
    for data in valid[:17]:
        read(data)
    for number in range(20):
        chance = random.Random(f"0 command {number}")
        read(variant(chance.choice(valid), chance))
