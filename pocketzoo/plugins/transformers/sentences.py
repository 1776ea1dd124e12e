"""Repositories of sentence-transformers: pooling, normalization, prompt and lengths, each followed or refused by name.

A text becomes what ``SentenceTransformer.encode`` makes of it without further arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins.transformers.repository_settings import check, read_json, read_table, refuse
from pocketzoo.plugins.transformers.sentence_options import Dense
from pocketzoo.plugins.transformers.setting_values import HINT, Fits, either, flag, one_of, several, whole
from pocketzoo.zoo.catalog.specs import FeatureSpec, HeadSpec, Repository, TextSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

MODULES, TRANSFORMER, MODEL = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
POOLING = "1_Pooling/config.json"
# What transformers of older releases had their settings in, by the kind of model.
FORMER = ("sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_camembert_config.json",
          "sentence_albert_config.json", "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json")  # fmt: skip
DENSE, DENSE_WEIGHTS = "2_Dense/config.json", "2_Dense/model.safetensors"
FILES = (MODULES, TRANSFORMER, *FORMER, MODEL, POOLING, DENSE)
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
# What the library imports by this name, and what it is called here.
ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "",
    **{f"torch.nn.modules.activation.{theirs}": own
       for theirs, own in (("Tanh", "tanh"), ("ReLU", "relu"), ("GELU", "gelu"), ("SiLU", "silu"),
                           ("Sigmoid", "sigmoid"), ("ELU", "elu"), ("Hardswish", "hardswish"))},
}  # fmt: skip
OF_DENSE: dict[str, Fits] = {
    **dict.fromkeys(("in_features", "out_features"), positive),
    "bias": flag,
    "activation_function": one_of(*ACTIVATIONS),
    **dict.fromkeys(("module_input_name", "module_output_name"), one_of("sentence_embedding")),
    "use_residual": lambda value: value is False,
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
    dense: Dense | None = None


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
    kinds = _modules(repository)
    modes = pooling.get("pooling_mode") or [word for flag_, word in FLAGS.items() if pooling.get(flag_)] or "mean"
    return Sentences(
        modes=(modes,) if isinstance(modes, str) else tuple(modes),
        normalize="Normalize" in kinds,
        prompt=prompt,
        keep=model.get("truncate_dim", 0),
        max_length=transformer.get("max_seq_length", 0),
        lowercase=transformer.get("do_lower_case", False),
        dense=_dense(repository) if "Dense" in kinds else None,
    )


def _dense(repository: Repository) -> Dense:
    table = read_table(repository, DENSE)
    check(DENSE, table, OF_DENSE, {})
    if missing := next((name for name in ("in_features", "out_features") if name not in table), ""):
        raise UnsupportedModelError(f"its {DENSE} lacks {missing!r}", "choose another repository")
    return Dense(
        inputs=table["in_features"],
        outputs=table["out_features"],
        bias=table.get("bias", True),
        activation=ACTIVATIONS[table["activation_function"]] if "activation_function" in table else "tanh",
    )


def _modules(repository: Repository) -> list[str]:
    """The kinds of modules that a text goes through.

    Raises:
        UnsupportedModelError: they are not a transformer, pooling, maybe a linear layer, mostly a normalization.
    """
    modules = read_json(repository, MODULES)
    if modules is None:
        return ["Transformer", "Pooling"]
    if not isinstance(modules, list) or not all(isinstance(each, dict) for each in modules):
        raise UnsupportedModelError(f"its {MODULES} is not a list of modules", "choose another repository")
    kinds = [str(each.get("type")).rpartition(".")[2] for each in modules]
    after = kinds[3:] if kinds[2:3] == ["Dense"] else kinds[2:]
    if kinds[:2] != ["Transformer", "Pooling"] or after not in ([], ["Normalize"]):
        known = ("Transformer", "Pooling", "Dense", "Normalize")
        other = next((k for k in kinds if k not in known), ", ".join(kinds))
        raise UnsupportedModelError(f"its {MODULES} names {other!r}, which is not followed here", HINT)
    for each, path in zip(modules, ("", "1_Pooling", *["2_Dense"] * ("Dense" in kinds)), strict=False):
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
    """Pooling, maybe a linear layer, and mostly a normalization, as a head.

    Raises:
        UnsupportedModelError: a setting or module is not followed here; it is named.
    """
    said = read(repository)
    outputs, dense = len(said.modes) * width, said.dense
    if dense is not None:
        if dense.inputs != outputs:
            raise refuse(DENSE, "in_features", dense.inputs, f"and pooling makes {outputs} numbers")
        if repository.input is None and DENSE_WEIGHTS not in repository.digests:
            raise UnsupportedModelError(f"it has no {DENSE_WEIGHTS}, and other formats can run code", HINT)
        outputs = dense.outputs
    outputs = min(said.keep, outputs) if said.keep else outputs
    return HeadSpec(
        name=f"{repository.name}#head",
        summary=f"{' and '.join(said.modes)} pooling of tokens{', a linear layer' if dense else ''}"
        f"{', normalized' if said.normalize else ''}",
        takes=("sequence",),
        task="feature-extraction",
        build=partial(_build, said.modes, said.normalize, dense),
        weights=repository.weights(DENSE_WEIGHTS, convert=partial(_take, dense)) if dense else None,
        loss="",
        backbone=repository.name,
        outputs=outputs,
    )


def _take(dense: Dense, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The linear layer's tensors, which are called here as there.

    Raises:
        UnsupportedModelError: one is missing, or of another shape than the settings say.
    """
    shapes = {
        "linear.weight": (dense.outputs, dense.inputs),
        **({"linear.bias": (dense.outputs,)} if dense.bias else {}),
    }
    for name, shape in shapes.items():
        if name not in state or tuple(state[name].shape) != shape:
            what = f"has {name} of {tuple(state[name].shape)}" if name in state else f"lacks {name}"
            raise UnsupportedModelError(f"its {DENSE_WEIGHTS} {what}, where {DENSE} says {shape}", HINT)
    return {name: state[name] for name in shapes}


def _build(
    modes: tuple[str, ...], normalize: bool, dense: Dense | None, features: FeatureSpec, outputs: int
) -> nn.Module:
    from pocketzoo.plugins.transformers.sentence_modules import SentencePooling

    return SentencePooling(features, outputs, modes, normalize=normalize, dense=dense)
