"""What the library is given of a config: its own words and no others, and nothing that chooses what it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hostileconfigs import EVIL, HOSTILE, configs, write_kernels
from hubmodels import ANSWER_FAMILIES, TEXT_FAMILIES, VISION_FAMILIES, WORDS, write_headed, write_model
from huggingface_hub import close_session
from localhub import point_at
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.import_utils import KERNELS_MIN_VERSION

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.plugins import transformers as plugin
from pocketzoo.plugins.transformers.modules import Answerer, Text, Vision, convert_answerer, convert_state
from pocketzoo.plugins.transformers.settings import AS_HERE, DROPPED, STRUCTURE, VISION, refusal, structure_of
from pocketzoo.zoo.catalog.plugin_manager import create_manager
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.hub.weights import read_weights
from pocketzoo.zoo.models.pull import pull

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # transformers' own, while it builds a model
SIZES = {**TEXT_FAMILIES, **ANSWER_FAMILIES, **VISION_FAMILIES}
BASE = {field.name for field in fields(PreTrainedConfig)}
# Attributes that the library's classes read without declaring them as fields.
UNDECLARED = {
    "t5": {"tie_word_embeddings", "scale_decoder_outputs", "is_gated_act", "dense_act_fn"},
    "llama": {"rope_theta", "rope_scaling", "partial_rotary_factor"},
    "qwen2": {"rope_theta", "rope_scaling", "head_dim"},
    **{family: {"num_hidden_layers"} for family in ("convnext", "convnextv2")},
    **{family: {"head_dim"} for family in ("vit", "deit", "dinov2")},
    **{family: {"type_vocab_size", "is_decoder", "add_cross_attention", "use_cache"} for family in ("albert", "mpnet")},
}


def test_every_family_that_is_read_has_its_settings():
    assert STRUCTURE.keys() == plugin.TEXTS | plugin.MAPS | plugin.TOKENS
    assert plugin.MAPS | plugin.TOKENS == VISION


@pytest.mark.parametrize("family", list(STRUCTURE))
def test_settings_are_fields_of_the_librarys_own_config_and_none_is_forgotten(family):
    """So a library that renames one, or has a new one, is noticed here."""
    kind = CONFIG_MAPPING[family]
    declared = {field.name for field in fields(kind)} - BASE
    known = declared | kind.attribute_map.keys() | UNDECLARED.get(family, set())
    assert STRUCTURE[family].keys() <= known
    assert declared | kind.attribute_map.keys() <= STRUCTURE[family].keys() | DROPPED
    assert not STRUCTURE[family].keys() & {*BASE, *HOSTILE} - {"hidden_act", "hidden_size", "layer_norm_eps"}


def test_no_setting_that_means_harm_is_dropped_without_a_look():
    assert not DROPPED & HOSTILE.keys()
    assert not {name for name in DROPPED if "implementation" in name and name != "_attn_implementation_autoset"}
    assert all(not fits(EVIL) for fits in AS_HERE.values())


@pytest.mark.parametrize("family", ["bert", "vit"])
def test_harm_is_refused_by_name_wherever_a_config_comes_in(family, refused):
    config = {"model_type": family, **SIZES[family]}
    cases = configs(config)
    assert len(cases) > 250
    for name, changed in cases:
        facts = Repository(
            repo_id="acme/tiny", commit="0" * 40, config=changed,
            sizes=dict.fromkeys(("model.safetensors", "tokenizer.json", "preprocessor_config.json"), 1),
        )  # fmt: skip
        assert name in plugin.refuses(facts), name
        for act in (
            lambda facts=facts: plugin.backbone(facts),
            lambda changed=changed: Text(changed, 0) if family == "bert" else Vision(changed),
            lambda changed=changed: convert_state(changed, {}),
        ):
            with refused(UnsupportedModelError, repr(name), hint="choose another repository"):
                act()


def test_harm_is_refused_by_the_decoder_of_an_encoder_decoder(refused):
    config = {"model_type": "t5", **SIZES["t5"]}
    for name, changed in configs(config):
        if name not in ("layer_norm_eps", "hidden_act"):  # of other families: T5 has neither, so neither is passed on
            for act in (
                lambda changed=changed: Answerer(changed),
                lambda changed=changed: convert_answerer(changed, {}),
            ):
                with refused(UnsupportedModelError, repr(name)):
                    act()


@pytest.mark.parametrize("inside", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize("harm", [{"attn_implementation": EVIL}, {"rope_type": EVIL}, {"full_attention": {"x": EVIL}},
                                  {"factor": EVIL}, {"long_factor": [EVIL]}])  # fmt: skip
def test_harm_inside_the_one_table_that_is_passed_on_is_refused(inside, harm, refused):
    with refused(UnsupportedModelError, repr(inside)):
        structure_of({"model_type": "llama", **SIZES["llama"], inside: {"rope_type": "default", **harm}})


KERNEL_RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from safetensors.torch import load_file
from transformers import BertConfig, BertModel
from hostileconfigs import EVIL, configs
from pocketzoo.core.errors import PocketzooError
from pocketzoo.plugins.transformers.modules import convert_state
folder, asked = Path(sys.argv[1]), Path(sys.argv[2])
config = json.loads((folder / "config.json").read_text())
state = load_file(folder / "model.safetensors")
try:
    BertModel(BertConfig.from_dict({**config, "attn_implementation": EVIL}))
except Exception:
    pass
noticed = asked.exists()
asked.unlink(missing_ok=True)
ends = []
for name, changed in configs(config):
    try:
        convert_state(changed, dict(state))
        ends.append([name, ""])
    except PocketzooError as error:
        ends.append([name, error.message])
print(json.dumps([noticed, asked.exists(), ends]))
"""


@pytest.mark.slow
def test_no_kernel_is_loaded_where_the_package_for_it_is_installed(tmp_path):
    write_model(tmp_path / "repo", "bert")
    asked = write_kernels(tmp_path / "site", KERNELS_MIN_VERSION)
    paths = [str(tmp_path / "site"), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    line = [sys.executable, "-c", KERNEL_RUN, str(tmp_path / "repo"), str(asked)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    noticed, after, ends = json.loads(done.stdout.splitlines()[-1])
    assert noticed, "the library alone would have asked for the kernel, and the witness would have noticed"
    assert not after
    assert all(repr(name) in message for name, message in ends)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_repository_that_means_harm_is_refused_before_its_weights_come(name, hub, tmp_path, monkeypatch, once):
    """By the real client, whose user has a token: it goes to no other repository."""
    source = once("settings-backbone", lambda path: write_model(path, "bert"))
    point_at(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    hub.state.add_folder(EVIL, source)
    config = json.loads((source / "config.json").read_text())
    for i, value in enumerate(HOSTILE[name]):
        for p in source.iterdir():
            (tmp_path / f"repo{i}").mkdir(exist_ok=True)
            (tmp_path / f"repo{i}" / p.name).write_bytes(p.read_bytes())
        (tmp_path / f"repo{i}" / "config.json").write_text(json.dumps({**config, name: value}))
        hub.state.add_folder(f"acme/tiny{i}", tmp_path / f"repo{i}")
        with pytest.raises(UnsupportedModelError) as caught:
            pull([f"hf://acme/tiny{i}"], registry=Registry(create_manager(points=[])))
        assert repr(name) in caught.value.message or f"({name})" in caught.value.message
        assert caught.value.hint
    close_session()
    assert not [r for r in hub.state.log if EVIL in r["path"] or "safetensors" in r["path"]]
    assert not [r for r in hub.state.log if r["auth"]]


def test_a_bundles_own_copy_of_a_config_is_held_to_the_same(tmp_path, refused):
    """It comes in without a look at the repository."""
    write_model(tmp_path, "bert")
    config = {**json.loads((tmp_path / "config.json").read_text()), "attn_implementation": EVIL}
    files = {p.name: p for p in tmp_path.iterdir()}
    with refused(UnsupportedModelError, "'attn_implementation'"):
        plugin.backbone(Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files))


# -- what is harmless


# Settings of configs that people publish, as their files have them.
PUBLISHED = {
    "bert": [
        {"architectures": ["BertModel"], "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "use_cache": True,
         "gradient_checkpointing": False, "position_embedding_type": "absolute", "transformers_version": "4.8.2"},
        {"directionality": "bidi", "pooler_fc_size": 768, "pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3,
         "pooler_size_per_head": 128, "pooler_type": "first_token_transform", "torch_dtype": "float32"},
        {"classifier_dropout": None, "problem_type": "multi_label_classification", "id2label": {"0": "a", "1": "b"},
         "label2id": {"a": 0, "b": 1}, "_attn_implementation_autoset": True, "attn_implementation": None},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"},
         "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"bad_words_ids": None, "do_sample": False, "early_stopping": False, "finetuning_task": "sst-2",
         "length_penalty": 1.0, "max_length": 20, "num_beams": 1, "num_return_sequences": 1, "output_past": True,
         "pruned_heads": {}, "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
         "torchscript": False, "use_bfloat16": False, "xla_device": True, "is_encoder_decoder": False},
        {"return_dict": False, "output_hidden_states": True, "output_attentions": True, "torchscript": True,
         "attn_implementation": "flash_attention_2", "chunk_size_feed_forward": 4},
    ],
    "albert": [{"down_scale_factor": 1, "gap_size": 0, "net_structure_type": 0, "num_memory_blocks": 0}],
    "distilbert": [{"sinusoidal_pos_embds": False, "tie_weights_": True, "seq_classif_dropout": 0.2}],
    "electra": [{"summary_activation": "gelu", "summary_last_dropout": 0.1, "summary_type": "first",
                 "summary_use_proj": True}],
    "gpt2": [{"n_ctx": 40, "summary_first_dropout": 0.1, "_num_labels": 1,
              "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}}}],
    "llama": [
        {"pretraining_tp": 1, "rope_scaling": None, "rope_theta": 10000.0, "attention_bias": False, "mlp_bias": False,
         "torch_dtype": "bfloat16", "head_dim": 16, "unsloth_version": "2024.9"},
        {"is_llama_config": True, "rope_interleaved": False,
         "transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}}},
        {"rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
                          "original_max_position_embeddings": 40}},
    ],
    "qwen2": [{"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 2, "use_mrope": False}],
    "t5": [{"output_past": True, "feed_forward_proj": "relu", "tie_word_embeddings": True, "dense_act_fn": "relu",
            "is_gated_act": False, "task_specific_params": {"summarization": {"prefix": "summarize: "}}}],
    "vit": [{"encoder_stride": 16, "qkv_bias": True, "pooler_act": "tanh", "problem_type": None}],
    "dinov2": [{"out_features": ["stage2"], "out_indices": [2], "stage_names": ["stem", "stage1", "stage2"],
                "apply_layernorm": True, "reshape_hidden_states": True}],
    "resnet": [{"out_features": ["stage4"], "stage_names": ["stem", "stage1", "stage2", "stage3", "stage4"]}],
}  # fmt: skip


def features(config):
    """Of a model with weights from a seed, on the same input."""
    torch.manual_seed(0)
    model = (Vision(config) if config["model_type"] in VISION else Text(config, 0)).eval()
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.1)
    size = (2, 3, 32, 32) if config["model_type"] in VISION else (2, 6)
    x = torch.rand(size, generator=generator)
    with torch.no_grad():
        return model(x if len(size) == 4 else (x * len(WORDS)).long())


@pytest.mark.parametrize(
    ("family", "number"), [(family, i) for family, changes in PUBLISHED.items() for i in range(len(changes))]
)
def test_what_published_configs_say_beside_changes_nothing(family, number):
    config = {"model_type": family, **SIZES[family]}
    changed = {**config, **PUBLISHED[family][number]}
    assert refusal(changed) == ""
    if "llama3" not in str(changed):  # which changes the positions, as it should
        assert torch.equal(features(changed), features(config))
    else:
        assert not torch.equal(features(changed), features(config))


@pytest.mark.parametrize("family", list(SIZES))
def test_what_the_library_writes_itself_is_passed_on(family):
    """All of it, even what it writes only on request, gives the library's own config."""
    for whole in (
        AutoConfig.for_model(family, **SIZES[family]).to_dict(),
        AutoConfig.for_model(family, **SIZES[family]).to_diff_dict(),
    ):
        assert refusal({**whole, "model_type": family}) == ""
        given = CONFIG_MAPPING[family].from_dict(structure_of({**whole, "model_type": family})).to_dict()
        assert {k: given[k] for k in STRUCTURE[family] if k in given} == {
            k: AutoConfig.for_model(family, **SIZES[family]).to_dict()[k] for k in STRUCTURE[family] if k in given
        }


@pytest.mark.slow
@pytest.mark.parametrize("family", list(SIZES))
def test_settings_of_another_family_change_no_model(family):
    """Which is why they are dropped: the library's own class is the same with them."""
    others = {
        name: value
        for other, sizes in SIZES.items()
        if (other in VISION) == (family in VISION)
        for name, value in sizes.items()
        if name not in {**SIZES[family], **STRUCTURE[family]} and name not in CONFIG_MAPPING[family]().to_dict()
    }
    with torch.device("meta"):
        plain, changed = (
            AutoModel.from_config(AutoConfig.for_model(family, **SIZES[family], **more)) for more in ({}, others)
        )
    assert [(k, v.shape) for k, v in plain.state_dict().items()] == [
        (k, v.shape) for k, v in changed.state_dict().items()
    ]
    assert str(plain) == str(changed)


# -- the type that numbers are stored in


TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64, "float32": torch.float32}


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("stored", TYPES)
@pytest.mark.parametrize("family", list(SIZES))
def test_a_model_is_in_float32_whatever_it_was_stored_in(family, stored, key, tmp_path, once):
    task = "answer" if family == "t5" else "image" if family in VISION else "sequence"
    source = once(f"settings-{family}", lambda path: write_headed(path, family, task))
    config = json.loads((source / "config.json").read_text())
    config = {**{k: v for k, v in config.items() if "dtype" not in k}, key: stored}
    state = {
        k: v.to(TYPES[stored]) if v.is_floating_point() else v
        for k, v in load_file(source / "model.safetensors").items()
    }
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    files = {p.name: p for p in source.iterdir()} | {"model.safetensors": tmp_path / "model.safetensors"}
    facts = Repository(repo_id="acme/tiny", commit="0" * 40, config=config, files=files, sizes=dict.fromkeys(files, 1),
                       digests=dict.fromkeys(files, "0" * 64))  # fmt: skip
    assert plugin.refuses(facts) == ""
    spec, head = plugin.backbone(facts), plugin.head_of(facts)
    module, reader = spec.build(), head.build(spec.features, head.outputs)
    for part, weights in ((module, spec.weights), (reader, head.weights)):
        found = weights.convert({k: v.clone() for k, v in state.items()})
        part.load_state_dict(found)
        assert {v.dtype for v in part.state_dict().values() if v.is_floating_point()} == {torch.float32}
    x = torch.rand(2, 3, 32, 32) if family in VISION else torch.randint(1, len(WORDS), (2, 6))
    with torch.no_grad():
        assert reader(module(x)).dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("stored", ["bfloat16", "float16"])
@pytest.mark.parametrize("tensors", ["as it says", "float32"])
def test_a_repository_in_sixteen_bits_is_fitted(stored, tensors, hub, tmp_path, monkeypatch, run, once):
    source = once("settings-backbone", lambda path: write_model(path, "bert"))
    point_at(hub, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("POCKETZOO_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repo").mkdir()
    for p in source.iterdir():
        (tmp_path / "repo" / p.name).write_bytes(p.read_bytes())
    config = {**json.loads((source / "config.json").read_text()), "dtype": stored}
    (tmp_path / "repo" / "config.json").write_text(json.dumps(config))
    if tensors == "as it says":
        state = {k: v.to(TYPES[stored]) for k, v in load_file(source / "model.safetensors").items()}
        save_file(state, tmp_path / "repo" / "model.safetensors", metadata={"format": "pt"})
    hub.state.add_folder("org/x", tmp_path / "repo")
    rows = [f"{start} {word},{label}" for label, start in enumerate(("the", "a small")) for word in WORDS[4:14]]
    (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    done = run("fit", "hf://org/x", "--head", "linear", "--data", "t.csv", "--epochs", 1, "-o", "out")
    close_session()
    assert done.exit_code == 0, done.output
    assert {v.dtype for v in load_file(tmp_path / "out" / "model.safetensors").values()} <= {torch.float32, torch.int64}


def test_a_weight_that_is_no_number_without_its_scale_is_refused(tmp_path, refused):
    from pocketzoo.zoo.catalog.specs import PackageFile, Weights

    save_file({"x": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / "model.safetensors")
    weights = Weights(file=PackageFile(package="x", path="model.safetensors", sha256=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pocketzoo.zoo.hub.weights.locate", lambda file: tmp_path / "model.safetensors")
        with refused(UnsupportedModelError, "the weight x is stored as float8_e4m3fn"):
            read_weights(weights)
