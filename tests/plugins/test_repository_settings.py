"""Each setting of a repository, one at a time: what comes out is the library's own result, or an error that names it.

A variation is a library, a setting and a kind of value. Images and ids are held against the library's own processor or
tokenizer, pooling against its formulas.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hubmodels import WORDS, write_tokenizer
from PIL import Image
from transformers import PreTrainedTokenizerFast

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers import images, sentences, texts
from pocketzoo.plugins.transformers.sentence_modules import SentencePooling
from pocketzoo.zoo.catalog.specs import FeatureSpec, Repository
from pocketzoo.zoo.data.processors.image_preprocessing import prepare_image
from pocketzoo.zoo.data.processors.text_encoder import TextEncoder

FAMILY = {"ViT": "vit", "DeiT": "deit", "ConvNext": "convnext", "Bit": "dinov2", "CLIP": "vit"}
IMAGE_VALUES = {
    "resample": [0, 1, 2, 3, 4, 5, 9, "bicubic"],
    "do_resize": [True, False],
    "do_rescale": [True, False],
    "rescale_factor": [1 / 255, 2 / 255, 1 / 127.5, -1.0, "1"],
    "do_normalize": [True, False],
    "image_mean": [[0.1, 0.2, 0.3], 0.4, [0.5], "x"],
    "image_std": [[0.1, 0.2, 0.3], 0.4, [0.0, 1.0, 1.0]],
    "size": [32, {"height": 32, "width": 48}, {"shortest_edge": 40}, {"longest_edge": 40}, {}],
    "crop_size": [24, {"height": 24, "width": 16}, 600],
    "do_center_crop": [True, False],
    "crop_pct": [0.5, 0.9, 0],
    "do_pad": [False, True],
    "do_convert_rgb": [True, False],
    "data_format": ["channels_first", "channels_last"],
    "unheard_of": [1],
}
IMAGES = [(kind, key, value) for kind in FAMILY for key, values in IMAGE_VALUES.items() for value in values]
TEXT_VALUES = {
    "model_max_length": [4, 6, 40, int(1e30), 0, "7"],
    "truncation_side": ["left", "right", "middle"],
    "padding_side": ["left", "right"],
    "add_bos_token": [True, False],
    "add_eos_token": [True, False],
    "do_lower_case": [True, False],
    "strip_accents": [True, False],
    "tokenize_chinese_chars": [True, False],
    "add_prefix_space": [True, False],
    "split_special_tokens": [False, True],
    "bos_token": ["[CLS]", "fast"],
    "eos_token": ["[SEP]"],
    "pad_token": ["[PAD]", {"content": "[PAD]", "lstrip": True, "rstrip": False, "single_word": False}],
    "unk_token": ["[UNK]"],
    "mask_token": ["images"],
    "additional_special_tokens": [["small"], []],
    "added_tokens_decoder": [{"5": {"content": "a", "special": True}}],
    "clean_up_tokenization_spaces": [True, False],
    "model_input_names": [["input_ids", "attention_mask"], ["pixel_values"]],
    "chat_template": ["{{ messages }}"],
    "auto_map": [{"AutoTokenizer": ["evil.Tokenizer", None]}],
    "unheard_of": [1],
}
TEXTS = [(key, value) for key, values in TEXT_VALUES.items() for value in values]
SAYS = [
    "the model is small",
    "it reads texts or images on an edge device and it reads texts or images on an edge device",
    "[CLS] the [PAD] fast model [SEP]",
    "THE zebra Is fast",
]
MODES = list(sentences.FLAGS.values())
JOINED = [(mode,) for mode in MODES] + [(a, b) for a in MODES for b in MODES if a != b] + [tuple(MODES)]


def repository(folder: Path, **files: object) -> Repository:
    for name, table in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(table))
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return Repository(repo_id="acme/tiny", commit="0" * 40, files=found)


def image_outcome(kind: str, key: str, value: object, folder: Path) -> str:
    """ "followed" or "refused"; anything else fails."""
    base = {"image_processor_type": f"{kind}ImageProcessor"}
    if kind == "ConvNext":
        base["size"] = {"shortest_edge": 32}
    elif kind in ("Bit", "CLIP"):
        base |= {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}
    elif kind == "DeiT":
        base |= {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}
    else:
        base["size"] = {"height": 32, "width": 32}
    table = {**base, key: value}
    facts = repository(folder, **{images.FILE: table})
    try:
        spec = images.image_spec(facts, {"model_type": FAMILY[kind], "num_channels": 3})
    except UnsupportedModelError as error:
        assert repr(key) in error.message or repr("size") in error.message, error.message  # noqa: PT017
        assert error.hint  # noqa: PT017
        return "refused"
    theirs = getattr(transformers, f"{kind}ImageProcessorPil").from_dict(table)
    generator = np.random.default_rng(0)
    for height, width in ((40, 57), (73, 41), (32, 32)):
        image = Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8))
        wanted = theirs(image, return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(prepare_image(image, spec), wanted, rtol=1e-4, atol=1e-4, err_msg=f"{key}={value}")
    return "followed"


def text_outcome(key: str, value: object, folder: Path) -> str:
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    table = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 12, "pad_token": "[PAD]",
             "bos_token": "[CLS]", "eos_token": "[SEP]", key: value}  # fmt: skip
    facts = repository(folder, **{texts.FILE: table})
    config = {"model_type": "bert", "vocab_size": len(WORDS), "pad_token_id": None, "max_position_embeddings": 40}
    try:
        spec = texts.text_spec(facts, config)
    except UnsupportedModelError as error:
        names = (
            ("add_bos_token", "add_eos_token") if key in ("add_bos_token", "add_eos_token") else (key,)
        )  # where one says it for both
        assert any(repr(name) in error.message for name in names), error.message  # noqa: PT017
        return "refused"
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    longest = min(theirs.model_max_length, 40)
    encoder = TextEncoder(spec, {"tokenizer.json": folder / "tokenizer.json"})
    for text in SAYS:
        wanted = theirs([text], truncation=True, max_length=longest)["input_ids"][0]
        ids, mask = encoder.masked([text])
        assert ids[0].tolist() == wanted, (key, value, text)
        assert mask.all()
    return "followed"


@pytest.mark.parametrize("number", range(0, len(IMAGES), 23))
def test_a_setting_of_images_is_followed_or_refused(number, tmp_path):
    assert image_outcome(*IMAGES[number], tmp_path)


@pytest.mark.parametrize(("key", "value"), TEXTS)
def test_a_setting_of_a_tokenizer_is_followed_or_refused(key, value, tmp_path):
    assert text_outcome(key, value, tmp_path / "tokenizer")


@pytest.mark.slow
def test_every_setting_of_images_is_followed_or_refused(tmp_path):
    ends = Counter(image_outcome(*each, tmp_path / str(i)) for i, each in enumerate(IMAGES))
    assert ends.total() >= 150
    assert min(ends.values()) > 40, "neither table is empty"


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("modes", JOINED, ids="+".join)
def test_pooling_is_by_its_formula_one_text_at_a_time(modes, normalize):
    generator = torch.Generator().manual_seed(1)
    features, lengths = torch.randn(3, 7, 4, generator=generator), [7, 4, 1]
    for row, length in zip(features, lengths, strict=True):
        row[length:] = 0
    spec = FeatureSpec("sequence", ("batch", "sequence", 4))
    given = SentencePooling(spec, 4 * len(modes), modes, normalize=normalize)(features)
    for out, row, n in zip(given, features, lengths, strict=True):
        tokens = row[:n]
        weights = torch.arange(1.0, n + 1)
        formulas = {
            "cls": tokens[0],
            "lasttoken": tokens[-1],
            "max": tokens.amax(0),
            "mean": tokens.mean(0),
            "mean_sqrt_len_tokens": tokens.sum(0) / n**0.5,
            "weightedmean": (weights @ tokens) / weights.sum(),
        }
        wanted = torch.cat([formulas[mode] for mode in modes])
        torch.testing.assert_close(out, wanted / wanted.norm() if normalize else wanted)


@pytest.mark.parametrize(("file", "table", "name"), [
    (sentences.MODEL, {"truncate_dim": 0}, "truncate_dim"),
    (sentences.MODEL, {"default_prompt_name": "query"}, "default_prompt_name"),
    (sentences.MODEL, {"prompts": {"query": 1}}, "prompts"),
    (sentences.MODEL, {"unheard_of": 1}, "unheard_of"),
    (sentences.TRANSFORMER, {"max_seq_length": "12"}, "max_seq_length"),
    (sentences.TRANSFORMER, {"transformer_task": "fill-mask"}, "transformer_task"),
    (sentences.TRANSFORMER, {"modality_config": {"image": {}}}, "modality_config"),
    (sentences.TRANSFORMER, {"unheard_of": 1}, "unheard_of"),
    (sentences.POOLING, {"pooling_mode": "median"}, "pooling_mode"),
    (sentences.POOLING, {"pooling_mode": []}, "pooling_mode"),
    (sentences.POOLING, {"unheard_of": 1}, "unheard_of"),
])  # fmt: skip
def test_what_sentence_transformers_would_do_otherwise_is_refused_by_name(file, table, name, tmp_path, refused):
    modules = [{"type": "a.Transformer"}, {"type": "b.Pooling"}]
    facts = repository(tmp_path, **{sentences.MODULES: modules, sentences.POOLING: {}, file: table})
    with refused(UnsupportedModelError, repr(name), hint="choose another repository"):
        sentences.read(facts)


def test_what_sentence_transformers_does_is_read_from_either_dialect(tmp_path):
    modules = [
        {"type": "a.Transformer", "path": ""},
        {"type": "b.Pooling", "path": "1_Pooling"},
        {"type": "c.Normalize"},
    ]
    model = {"prompts": {"query": "it reads ", "document": ""}, "default_prompt_name": "query", "truncate_dim": 5}
    for pooling in (
        {"pooling_mode": ["max", "mean"]},
        {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True},
    ):
        files = {sentences.MODULES: modules, sentences.POOLING: pooling, sentences.MODEL: model,
                 sentences.TRANSFORMER: {"max_seq_length": 9, "do_lower_case": True}}  # fmt: skip
        said = sentences.read(repository(tmp_path, **files))
        assert said == sentences.Sentences(
            modes=("max", "mean"), normalize=True, prompt="it reads ", keep=5, max_length=9, lowercase=True
        )


@pytest.mark.parametrize("channels", [-1, 1025, 10**12])
def test_channels_that_no_image_has_are_refused_before_any_memory_is_asked_for(channels, tmp_path, refused):
    facts = repository(tmp_path, **{images.FILE: {"image_processor_type": "ViTImageProcessor"}})
    with refused(UnsupportedModelError, f"its config.json sets 'num_channels' to {channels}, where images have up to"):
        images.image_spec(facts, {"model_type": "vit", "num_channels": channels})
