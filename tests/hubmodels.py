"""Tiny models of every family that the plugin transformers reads, as repositories: random weights, real files.

Their weights mean nothing, so they test that a model is read as its library reads it, never how good it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel
from transformers.models.auto import modeling_auto

from pocketzoo.plugins import transformers as plugin
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.hub.weights import read_safetensors
from pocketzoo.zoo.models.heads import build_head

SENTENCE = "the a model is small fast on an edge device and it reads texts or images"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *dict.fromkeys(SENTENCE.split())]
SIZES: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
    "vocab_size": len(WORDS), "max_position_embeddings": 40, "pad_token_id": 0,
}  # fmt: skip
VISION: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "mlp_ratio": 2, "num_channels": 3,
}  # fmt: skip
TEXT_FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SIZES,
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "vocab_size": len(WORDS),
                   "max_position_embeddings": 40, "pad_token_id": 0},
    "roberta": {**SIZES, "max_position_embeddings": 42},
    "electra": {**SIZES, "embedding_size": 16},
    "albert": {**SIZES, "embedding_size": 16},
    "mpnet": {**SIZES, "max_position_embeddings": 42},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": len(WORDS),
             "bos_token_id": 0, "eos_token_id": 0},
    "llama": {**SIZES, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3},
    "qwen2": {**SIZES, "num_key_value_heads": 1, "bos_token_id": 2, "eos_token_id": 3},
}  # fmt: skip
ANSWER_FAMILIES: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2, "vocab_size": len(WORDS),
           "n_positions": 40, "pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0},
}  # fmt: skip
VISION_FAMILIES: dict[str, dict[str, Any]] = {
    "vit": VISION,
    "deit": VISION,
    "dinov2": VISION,
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"},
    "convnext": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "image_size": 32},
    "convnextv2": {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "image_size": 32},
}
TASKS = {
    "sequence": "ForSequenceClassification", "token": "ForTokenClassification", "image": "ForImageClassification",
    "language": "ForCausalLM", "answer": "ForConditionalGeneration",
}  # fmt: skip
PROCESSOR = {
    "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "resample": 3, "do_resize": True,
    "size": {"height": 32, "width": 32},
}  # fmt: skip


def write_model(folder: Path, family: str, **changes: Any) -> Any:
    """Write a repository of a family into ``folder``; returns the library's own model, in eval mode."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {**TEXT_FAMILIES, **VISION_FAMILIES}[family]
    config = AutoConfig.for_model(family, **{**sizes, **changes})
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.randn_like(value) * 0.02)  # fresh biases and running means are all zero
    model.save_pretrained(folder, safe_serialization=True)
    if family in TEXT_FAMILIES:
        write_tokenizer(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n")
    return model


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that knows WORDS."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_sentence_transformer(folder: Path, mode: str = "mean", *, normalize: bool = True, **changes: Any) -> Any:
    """A repository of sentence-transformers on a tiny bert."""
    model = write_model(folder, "bert", **changes)
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{m}": m.startswith(mode) for m in ("cls_token", "mean_tokens", "max_tokens")}
    width = model.config.hidden_size
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": width, **flags}))
    kinds = ["models.Transformer", "models.Pooling", *(["models.Normalize"] if normalize else [])]
    modules = [{"idx": i, "type": f"sentence_transformers.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 24}))
    return model


def write_headed(
    folder: Path, family: str, task: str, *, labels: int = 5, changes: Mapping[str, Any] | None = None, **options: Any
) -> Any:
    """As ``write_model``, with a head for a task of TASKS; ``options`` are those of ``save_pretrained``."""
    mapping = {
        "sequence": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "token": modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        "image": {**modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "deit": "DeiTForImageClassification"},
        "language": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        "answer": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }[task]
    sizes = {**TEXT_FAMILIES, **ANSWER_FAMILIES, **VISION_FAMILIES}[family] | dict(changes or {})
    names = {"id2label": {i: f"kind {i}" for i in range(labels)}, "label2id": {f"kind {i}": i for i in range(labels)}}
    config = AutoConfig.for_model(
        family, **{**sizes, "pad_token_id": 0, **({} if task in ("language", "answer") else names)}
    )
    torch.manual_seed(0)
    model = getattr(transformers, mapping[family])(config).eval()
    for value in model.parameters():
        value.data.add_(torch.randn_like(value) * 0.05)
    model.save_pretrained(folder, **options)
    if family not in VISION_FAMILIES:
        write_tokenizer(folder)
    else:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlibrary_name: transformers\n---\n")
    return model


def opened(facts: Repository, folder: Path) -> tuple[Any, Any, torch.nn.Module]:
    """Backbone's and head's specs, and one after the other as they are built and filled when a repository is opened."""
    assert plugin.refuses(facts) == ""
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    state = read_safetensors(folder / "model.safetensors")
    module, reader = spec.build(), build_head(head, spec.features, head.outputs)
    module.load_state_dict(spec.weights.convert(dict(state)))
    reader.load_state_dict(head.weights.convert(dict(state)))
    return spec, head, torch.nn.Sequential(module, reader).eval()
