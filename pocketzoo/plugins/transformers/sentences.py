"""Repositories of sentence-transformers: pooling, normalization, prompt and lengths, each followed or refused by name.

A text becomes what ``SentenceTransformer.encode`` makes of it without further arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers.repository_settings import check, read_json, read_table, refuse
from pocketzoo.plugins.transformers.setting_values import HINT, Fits, either, flag, one_of, several, whole
from pocketzoo.zoo.catalog.specs import FeatureSpec, HeadSpec, Repository, TextSpec

if TYPE_CHECKING:
    from torch import nn

MODULES, TRANSFORMER, MODEL = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
# What transformers of older releases had their settings in, by the kind of model.
FORMER = ("sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_camembert_config.json",
          "sentence_albert_config.json", "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json")  # fmt: skip
FILES = (MODULES, TRANSFORMER, *FORMER, MODEL, POOLING)
# Former flag -> mode; several are joined in this order.
FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
mode = one_of(*FLAGS.values())


def positive(value: Any) -> bool:
    return whole(value) and value > 0


def named_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def text_alone(value: Any) -> bool:
    """How the library calls a model of texts: as it is called here."""
    return isinstance(value, dict) and value.get("text") == {
        "method": "forward", "method_output_name": "last_hidden_state",
    }  # fmt: skip


OF_POOLING: dict[str, Fits] = {
    "pooling_mode": either(mode, lambda value: bool(value) and several(mode)(value)),
    **dict.fromkeys((*FLAGS, "include_prompt"), flag),
    **dict.fromkeys(("embedding_dimension", "word_embedding_dimension"), positive),
}
OF_TRANSFORMER: dict[str, Fits] = {
    "max_seq_length": positive,
    "do_lower_case": flag,
    "transformer_task": one_of("feature-extraction"),
    "modality_config": text_alone,
    "module_output_name": one_of("token_embeddings"),
    **dict.fromkeys(("processing_kwargs", "model_args", "tokenizer_args", "config_args", "processor_kwargs",
                     "model_kwargs", "config_kwargs"), lambda value: value == {}),
}  # fmt: skip
OF_MODEL: dict[str, Fits] = {
    "prompts": named_texts,
    "default_prompt_name": lambda value: isinstance(value, str),
    "truncate_dim": positive,
    "model_type": one_of("SentenceTransformer"),
}
HARMLESS_OF_TRANSFORMER = {
    "unpad_inputs": "how the library lays a batch out: the answer is the same",
    **dict.fromkeys(("query_length", "document_length", "query_expansion"), "of models of several vectors a text"),
}
HARMLESS_OF_MODEL = {
    "__version__": "what wrote it",
    "similarity_fn_name": "how two vectors are compared, after they are made",
}


@dataclass(frozen=True, slots=True)
class Sentences:
    """What is done with a text and its tokens."""

    modes: tuple[str, ...] = ("mean",)  # joined in this order
    normalize: bool = False
    prompt: str = ""
    keep: int = 0  # of the vector's numbers, the first; 0: all
    max_length: int = 0  # tokens; 0: what the tokenizer says
    lowercase: bool = False


def is_one(repository: Repository) -> bool:
    """Whether sentence-transformers wrote a repository."""
    return MODULES in repository.files or POOLING in repository.files


def read(repository: Repository) -> Sentences:
    """What a repository's files say.

    Raises:
        UnsupportedModelError: a setting or module is not followed here; it is named.
    """
    model = read_table(repository, MODEL)
    check(MODEL, model, OF_MODEL, HARMLESS_OF_MODEL)
    name, prompts = model.get("default_prompt_name"), model.get("prompts", {})
    if name is not None and name not in prompts:
        raise refuse(MODEL, "default_prompt_name", name, "which is none of its prompts")
    prompt = prompts[name] if name is not None else ""
    file = next((each for each in (TRANSFORMER, *FORMER) if each in repository.files), TRANSFORMER)
    transformer = read_table(repository, file)
    check(file, transformer, OF_TRANSFORMER, HARMLESS_OF_TRANSFORMER)
    pooling = read_table(repository, POOLING)
    check(POOLING, pooling, OF_POOLING, {})
    if prompt and not pooling.get("include_prompt", True):
        raise refuse(POOLING, "include_prompt", False, f"where texts begin with {prompt!r}")
    modes = pooling.get("pooling_mode") or [word for flag_, word in FLAGS.items() if pooling.get(flag_)] or "mean"
    return Sentences(
        modes=(modes,) if isinstance(modes, str) else tuple(modes),
        normalize="Normalize" in _modules(repository),
        prompt=prompt,
        keep=model.get("truncate_dim", 0),
        max_length=transformer.get("max_seq_length", 0),
        lowercase=transformer.get("do_lower_case", False),
    )


def _modules(repository: Repository) -> list[str]:
    """The kinds of modules that a text goes through.

    Raises:
        UnsupportedModelError: they are not a transformer, pooling, and mostly a normalization.
    """
    modules = read_json(repository, MODULES)
    if modules is None:
        return ["Transformer", "Pooling"]
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise UnsupportedModelError(f"its {MODULES} is not a list of modules", "choose another repository")
    kinds = [str(each.get("type")).rpartition(".")[2] for each in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        other = next((k for k in kinds if k not in ("Transformer", "Pooling", "Normalize")), ", ".join(kinds))
        raise UnsupportedModelError(f"its {MODULES} names {other!r}, which is not followed here", HINT)
    for each, path in zip(modules, ("", "1_Pooling"), strict=False):
        if each.get("path", path) != path:
            raise refuse(MODULES, "path", each["path"])
    return kinds


def with_sentences(spec: TextSpec, repository: Repository, positions: int) -> TextSpec:
    """How a repository's texts are read, with what sentence-transformers does to them before.

    Raises:
        UnsupportedModelError: a setting or module is not followed here; it is named.
    """
    said = read(repository)
    longest = min(positions, said.max_length) if said.max_length else spec.max_length  # before the tokenizer's own
    return replace(spec, max_length=longest, prefix=said.prompt, lowercase=said.lowercase)


def head_of(repository: Repository, width: int) -> HeadSpec:
    """Pooling, and mostly a normalization, as a head without weights.

    Raises:
        UnsupportedModelError: a setting or module is not followed here; it is named.
    """
    said = read(repository)
    outputs = len(said.modes) * width
    outputs = min(said.keep, outputs) if said.keep else outputs
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"{' and '.join(said.modes)} pooling of tokens{', normalized' if said.normalize else ''}",
        takes=("sequence",),
        task="feature-extraction",
        build=partial(_build, said.modes, said.normalize),
        loss="",
        backbone=repository.name,
        outputs=outputs,
    )


def _build(modes: tuple[str, ...], normalize: bool, features: FeatureSpec, outputs: int) -> nn.Module:
    from pocketzoo.plugins.transformers.sentence_modules import SentencePooling

    return SentencePooling(features, outputs, modes, normalize=normalize)
