"""The model card a bundle carries: what the manifest says, for a human."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pocketzoo.zoo.bundle import Manifest


def model_card(manifest: Manifest) -> str:
    """Markdown with the front matter the Hub reads."""
    model = manifest.model
    lines = [
        "---",
        f"license: {manifest.license.lower()}",
        "library_name: pocketzoo",
        "pipeline_tag: image-classification",
        "---",
        "",
        f"# {manifest.name}",
        "",
        f"Backbone `{model.backbone}`{f', cut after `{model.cut}`' if model.cut else ''}, head `{model.head}`, "
        f"{model.outputs} classes. Made by pocketzoo {manifest.pocketzoo}.",
        "",
        f"- input: {manifest.input.name} {' x '.join(map(str, manifest.input.shape))}, {manifest.input.layout}",
        f"- parameters: {manifest.parameters:,}; multiply-accumulates per sample: {manifest.macs:,}",
    ]
    if manifest.steps:
        lines.append(f"- compressed by: {', '.join(step.kind for step in manifest.steps)}")
    lines += [f"- {name}: {value}" for name, value in manifest.metrics.items() if isinstance(value, (int, float, str))]
    lines += ["", "```sh", "pocketzoo predict . PHOTO.jpg", "```", ""]
    return "\n".join(lines)
