"""The model card of a bundle: its manifest for human readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketzoo.zoo.bundles.manifest import Manifest

TASKS = {"token-logits": "token-classification", "next-token-logits": "text-generation",
         "first-token-logits": "text2text-generation", "q-values": "reinforcement-learning"}  # fmt: skip


def model_card(manifest: Manifest) -> str:
    """Markdown with the front matter the Hub reads: YAML, quoted where a license or a name needs it."""
    from huggingface_hub import ModelCardData

    model = manifest.model
    data = ModelCardData(
        license=manifest.license.lower(),
        library_name="pocketzoo",
        pipeline_tag=_task(manifest),
        base_model=_base(model.backbone),
    )
    lines = [
        "---",
        data.to_yaml(original_order=["license", "library_name", "pipeline_tag", "base_model"]),
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"From the file `{model.backbone.removeprefix('onnx:')}`, {model.outputs} outputs. Made by pocketzoo "
        f"{manifest.pocketzoo}."
        if model.backbone.startswith("onnx:")
        else f"Backbone `{model.backbone}`{f', cut after `{model.cut}`' if model.cut else ''}, head `{model.head}`, "
        f"{model.outputs} {'classes' if manifest.labels else 'outputs'}. Made by pocketzoo {manifest.pocketzoo}.",
        "",
        f"- input: {manifest.input.name} {' x '.join(map(str, manifest.input.shape))}, {manifest.input.layout}",
        f"- parameters: {manifest.parameters:,}; multiply-accumulates per sample: {manifest.macs:,}",
    ]
    if manifest.steps:
        lines.append(f"- compressed by: {', '.join(step.kind for step in manifest.steps)}")
    lines += [f"- {name}: {value}" for name, value in manifest.metrics.items() if isinstance(value, (int, float, str))]
    if manifest.gives in ("logits", "values") and manifest.input.layout != "NC":
        lines += ["", "```sh", f"pocketzoo predict . {'PHOTO.jpg' if _reads_pictures(manifest) else 'TEXT'}", "```"]
    return "\n".join([*lines, ""])


def _reads_pictures(manifest: Manifest) -> bool:
    return manifest.input.layout == "NCHW"


def _task(manifest: Manifest) -> str:
    """What the Hub calls it."""
    if manifest.input.layout == "NC" and manifest.gives in ("logits", "values"):
        return "tabular-classification" if manifest.gives == "logits" else "tabular-regression"
    if manifest.gives == "logits" or (manifest.gives == "values" and not _reads_pictures(manifest)):
        return "image-classification" if _reads_pictures(manifest) else "text-classification"  # numbers of texts too
    return TASKS.get(manifest.gives, "feature-extraction")


def _base(backbone: str) -> str | None:
    """The repository it was made from, which the Hub shows as its origin."""
    return backbone.removeprefix("hf://").split("@")[0] if backbone.startswith("hf://") else None
