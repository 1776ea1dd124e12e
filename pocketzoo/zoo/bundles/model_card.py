"""The model card of a bundle: its manifest for human readers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketzoo.zoo.bundles.manifest import Manifest

# What Markdown takes for its own, at the start of a line or anywhere; an underscore within a word is none of it.
_ACTIVE = re.compile(r"[\\`*\[\]<&~|]|(?<![^\W_])_|_(?![^\W_])|^[-+>=]|(?<!\S)#")


def model_card(manifest: Manifest) -> str:
    """Markdown with the front matter the Hub reads: YAML, quoted where a license or a name needs it."""
    from huggingface_hub import ModelCardData

    model = manifest.model
    data = ModelCardData(
        license=manifest.license.lower(),
        library_name="pocketzoo",
        pipeline_tag=manifest.tag or manifest.task or None,
        base_model=_base(model.backbone),
    )
    lines = [
        "---",
        data.to_yaml(original_order=["license", "library_name", "pipeline_tag", "base_model"]),
        "---",
        "",
        f"# {_text(manifest.name)}",
        "",
        f"{_origin(manifest)} Made by pocketzoo {_text(manifest.pocketzoo)}.",
        "",
        f"- input: {_text(manifest.input.name)} {_text(' x '.join(map(str, manifest.input.shape)))}, "
        f"{manifest.input.layout}",
        f"- parameters: {manifest.parameters:,}; multiply-accumulates per sample: {manifest.macs:,}",
    ]
    if manifest.steps:
        lines.append(f"- compressed by: {_text(', '.join(step.kind for step in manifest.steps))}")
    numbers = {name: value for name, value in manifest.metrics.items() if isinstance(value, (int, float, str))}
    lines += [f"- {_text(name)}: {_text(value)}" for name, value in numbers.items()]
    if manifest.task:
        lines += ["", "```sh", "pocketzoo predict . FILE", "```"]
    return "\n".join([*lines, ""])


def _origin(manifest: Manifest) -> str:
    model = manifest.model
    if model.backbone.startswith("onnx:"):
        return f"From the file {_code(model.backbone.removeprefix('onnx:'))}, {model.outputs} outputs."
    cut = f", cut after {_code(model.cut)}" if model.cut else ""
    outputs = "classes" if manifest.labels else "outputs"
    return f"Backbone {_code(model.backbone)}{cut}, head {_code(model.head)}, {model.outputs} {outputs}."


def _text(value: object) -> str:
    """One line that Markdown shows as it is."""
    text = _ACTIVE.sub(r"\\\g<0>", " ".join(str(value).split()))
    return re.sub(r"^(\d+)([.)](?: |$))", r"\1\\\2", text)  # the number of an item


def _code(value: str) -> str:
    """One line of code, between more backticks than it has in a row."""
    text = " ".join(value.split())
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _base(backbone: str) -> str | None:
    """The repository it was made from, which the Hub shows as its origin."""
    return backbone.removeprefix("hf://").split("@")[0] if backbone.startswith("hf://") else None
