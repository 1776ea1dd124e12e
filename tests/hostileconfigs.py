"""Settings of a config.json that choose what a library loads, with values that mean harm; and a witness who notes it.

Each is at the top level, or inside a table where the library looks for more settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

EVIL = "other/evil"  # a repository that nobody asked for
HOSTILE: dict[str, list[Any]] = {
    "attn_implementation": [
        EVIL,
        "kernels-community/evil",
        f"paged|{EVIL}",
        f"{EVIL}@main:evil",
        {"": EVIL},
        [EVIL],
        1,
    ],
    "_attn_implementation": [EVIL, {"": EVIL}],
    "_attn_implementation_internal": [EVIL, {"": EVIL}],
    "experts_implementation": [EVIL, {"": EVIL}],
    "_experts_implementation": [EVIL],
    "_experts_implementation_internal": [EVIL],
    "quantization_config": [{"quant_method": method, "kernels": EVIL} for method in ("bitsandbytes", "gptq", "mxfp4")],
    "use_kernels": [True],
    "kernel_config": [{"RMSNorm": f"{EVIL}:RMSNorm"}],
    "fusion_config": [{"evil": EVIL}],
    "auto_map": [{"AutoModel": "evil.Model"}, {"AutoModel": f"{EVIL}--evil.Model"}, {}],
    "custom_pipelines": [{"evil": {"impl": "evil.Pipeline"}}],
    "trust_remote_code": [True, EVIL],
    "transformers_weights": ["../../secret.safetensors", EVIL],
    "gguf_file": ["evil.gguf"],
    "configuration_files": [["config.5.0.0.json"]],
    "extra_files": [["../../secret"]],
    "distributed_config": [{"tp_plan": "auto"}],
    "per_layer_config": [{"0": {"attn_implementation": EVIL}}],
    "backbone": [EVIL, "resnet18"],
    "backbone_config": [{"model_type": "timm_backbone", "backbone": f"hf-hub:{EVIL}"}],
    "backbone_kwargs": [{"checkpoint_path": "secret"}],
    "use_timm_backbone": [True],
    "use_pretrained_backbone": [True],
    "base_model_name_or_path": [EVIL],
    "peft_type": ["LORA"],
    "adapter_kwargs": [{"token": "x"}],
    "_adapter_model_path": [EVIL],
    "custom_generate": [EVIL],
    "cache_implementation": [EVIL],
    "compile_config": [{"backend": EVIL}],
    "is_causal": [False],
    "attention_chunk_size": [4],
    "hidden_act": ["xielu", EVIL, "os.system", {"class_name": EVIL}],
    "layer_norm_eps": [EVIL, {"": EVIL}],
    "hidden_size": ["32", {"": 32}, [32]],
}
NESTS = ("vision_config", "text_config", "encoder", "decoder", "audio_config", "backbone_config", "per_layer_config")

# Architectures for timm that are no names of its own.
TIMM_PLACES = (
    "hf-hub:other/evil", "hf_hub:other/evil", "HF-HUB:other/evil", "hf-hub:other/evil@main", "local-dir:/tmp",
    "local-dir:.", "timm:resnet10t", "https://example.com/x", "file:///etc/passwd", "other/evil", "../evil",
    "resnet10t.evil", "resnet10t.", ".resnet10t", "resnet10t\n", " resnet10t", "", "evil:resnet10t",
)  # fmt: skip
# Everything that timm's own functions take beside what they hand to a model, and what of a model is no shape.
TIMM_HARM: dict[str, list[Any]] = {
    "checkpoint_path": ["/tmp/evil", "evil.pth", True, 1],
    "pretrained": [True, 1, "in1k"],
    "pretrained_cfg": ["evil", {"file": "/tmp/evil"}, {"url": "https://example.com/x"}, {"hf_hub_id": "other/evil"}],
    "pretrained_cfg_overlay": [{"file": "/tmp/evil"}, {"custom_load": True}, {"hf_hub_id": "other/evil"}],
    "pretrained_strict": [False],
    "pretrained_filter_fn": ["os.system"],
    "pretrained_custom_load": [True],
    "pretrained_model_args": [{"checkpoint_path": "/tmp/evil"}],
    "cache_dir": ["/tmp/evil"],
    "model_name": ["hf-hub:other/evil"],
    "model_cls": ["os.system"],
    "model_cfg": [{"x": 1}],
    "variant": ["hf-hub:other/evil"],
    "feature_cfg": [{"feature_cls": "fx"}],
    "feature_cls": ["fx"],
    "features_only": [True],
    "out_indices": [[0]],
    "kwargs_filter": [["num_classes"]],
    "pruned": [True],
    "scriptable": [True],
    "exportable": [True],
    "no_jit": [True],
    "use_naflex": [True],
    "cfg": [{"x": 1}],
    "device": ["cuda", "meta", 0],
    "dtype": ["bfloat16"],
    "block": ["os.system"],
    "hybrid_backbone": ["hf-hub:other/evil"],
    "stem_backbone": ["hf-hub:other/evil"],
    "act_layer": ["os.system", "../evil", "a/b", "relu\n", {"x": 1}, ["relu"], 1, "x" * 40],
    "norm_layer": ["torch.nn.LayerNorm", {"x": 1}],
    "global_pool": ["hf-hub:other/evil", ["avg"]],
    "img_size": ["224", {"x": 1}, [[[[224]]]], float("nan"), [float("inf")]],
    "depths": [["/tmp/evil"], [[{"x": 1}]]],
    "num_classes": ["10", {"x": 1}],
    "unheard_of": [1],
    "": [1],
}

KERNELS = '''"""Notes who asks for a kernel."""
import pathlib
NOTED = pathlib.Path(__file__).with_name("asked")
def note(name):
    def asked(*given, **options):
        with NOTED.open("a") as file:
            file.write(f"{name} {given!r} {options!r}\\\\n")
        raise RuntimeError(f"{name} was called")
    return asked
def plain(*given, **options):
    return lambda decorated: decorated
use_kernel_forward_from_hub = use_kernelized_func = replace_kernel_forward_from_hub = plain
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return note(name)
'''


def write_kernels(folder: Path, version: str) -> Path:
    """A package ``kernels`` in ``folder``, which has no loader but a witness; returns the file that it writes to."""
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels" / "__init__.py").write_text(KERNELS.replace("\\\\n", "\\n"))
    facts = folder / f"kernels-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {version}\n")
    (facts / "RECORD").write_text("kernels/__init__.py,,\n")
    return folder / "kernels" / "asked"


def configs(config: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(the setting's name, the whole config) for every setting, value and place."""
    top = [(name, {**config, name: value}) for name, values in HOSTILE.items() for value in values]
    deep = [
        (nest, {**config, nest: {"model_type": "bert", name: value}})
        for nest in NESTS
        for name, values in HOSTILE.items()
        for value in values[:1]
    ]
    return top + deep
