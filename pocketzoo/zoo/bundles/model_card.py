"""The model card of a bundle: its manifest for human readers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import PocketzooError
from pocketzoo.core.untrusted.shown import shown
from pocketzoo.zoo.bundles.measurement import runs_of
from pocketzoo.zoo.catalog.described import spec_of
from pocketzoo.zoo.catalog.head_task import former_task, pipeline_tag
from pocketzoo.zoo.catalog.registry import default_registry

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

    from pocketzoo.zoo.bundles.manifest import Manifest
    from pocketzoo.zoo.bundles.measurement import Measurement
    from pocketzoo.zoo.catalog.processor import ProcessorSpec

# What Markdown takes for its own, at the start of a line or anywhere; an underscore within a word is none of it.
_ACTIVE = re.compile(r"[\\`*\[\]<&~|]|(?<![^\W_])_|_(?![^\W_])|^[-+>=]|(?<!\S)#")


def model_card(manifest: Manifest) -> str:
    """Markdown with the front matter the Hub reads: YAML, quoted where a license or a name needs it."""
    from huggingface_hub import ModelCardData

    model = manifest.model
    data = ModelCardData(
        license=manifest.license.lower(),
        library_name="pocketzoo",
        pipeline_tag=_tag(manifest),
        base_model=_base(model.backbone),
    )
    lines = [
        "---",
        _front_matter(data),
        "---",
    ]
    body = [
        "",
        f"# {_text(manifest.name)}",
        "",
        f"{_origin(manifest)} Made by pocketzoo {_text(manifest.pocketzoo)}.",
        "",
        f"- input: {_input(manifest)}",
        f"- parameters: {manifest.parameters:,}; multiply-accumulates per sample: {manifest.macs:,}",
    ]
    if manifest.steps:
        body.append(f"- compressed by: {_text(', '.join(step.compressor for step in manifest.steps))}")
    numbers = {name: value for name, value in manifest.metrics.items() if isinstance(value, (int, float, str))}
    body += [f"- {_text(name)}: {_text(value)}" for name, value in numbers.items()]
    body += _measured(manifest)
    if _tag(manifest) and (spec := _processor(manifest)[0]) and spec.argument:
        body += ["", "```sh", f"pocketzoo predict . {spec.argument}", "```"]
    return "\n".join([*lines, shown("\n".join([*body, ""]))])


def _front_matter(data: ModelCardData) -> str:
    """YAML; where a character would act on its reader, in YAML's own escapes: the values stay what they are."""
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    text = data.to_yaml(original_order=["license", "library_name", "pipeline_tag", "base_model"])
    fields: dict[str, object] = data.to_dict()  # type: ignore[no-untyped-call]
    escaped: str = yaml_dump(fields, sort_keys=False, allow_unicode=False).strip()
    return text if shown(text) == text else escaped


def _origin(manifest: Manifest) -> str:
    model = manifest.model
    if model.backbone.startswith("onnx:"):
        return f"From the file {_code(model.backbone.removeprefix('onnx:'))}, {model.outputs} outputs."
    cut = f", cut after {_code(model.cut)}" if model.cut else ""
    outputs = "classes" if manifest.labels else "outputs"
    return f"Backbone {_code(model.backbone)}{cut}, head {_code(model.head)}, {model.outputs} {outputs}."


def _measured(manifest: Manifest) -> list[str]:
    """What was measured last: on data if ever, else on samples that nobody took, which is said."""
    runs = runs_of(manifest.measurements)
    runs = [run for run in runs if not run[0].made_samples] or runs
    lines = []
    for row in runs[-1] if runs else ():
        name = f"{row.precision} for {row.target}" if row.target else row.precision
        facts = [] if row.metric is None else [f"{row.metric.name} {row.metric.value:.4g}"]
        if row is not runs[-1][0]:
            facts += [] if row.agreement is None else [f"agreement {row.agreement:.3f}"]
            facts += _nearness(row)
        if facts:
            samples = f"{row.samples} {row.made_samples or 'samples'}"
            of = f" of {row.measured.data}" * (not row.made_samples) if row.measured else ""
            model = "" if row.bundle == manifest.name else f"{row.bundle}, "
            text = f"{model}{name}: {', '.join(facts)}, on {samples}{of}"
            lines.append(f"- measured: {_text(text)}")
    return lines


def _nearness(row: Measurement) -> list[str]:
    """The SQNR of each output; of values that have no distance the fraction that differs."""
    selected = [
        f"{name} compared before {by}"
        + (f", {row.same_selection[name]:.1%} selected the same" if name in row.same_selection else "")
        for name, by in row.selected_by.items()
    ]
    if len(row.outputs) < 2:
        return selected if row.sqnr is None else [f"SQNR {row.sqnr:.1f} dB", *selected]
    facts = selected
    for name, sqnr in row.outputs.items():
        far = "equal" if sqnr is None else f"SQNR {sqnr:.1f} dB"
        facts.append(f"{name}: {f'{row.differing[name]:.1%} differ' if sqnr and name in row.differing else far}")
    return facts


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


def _processor(manifest: Manifest) -> tuple[ProcessorSpec | None, Any]:
    """The spec and config of its processor; None where the plugin of it is not installed."""
    try:
        spec, config = spec_of(manifest.processor, "processor", default_registry())
    except PocketzooError:
        return None, None
    return spec, config


def _input(manifest: Manifest) -> str:
    """The inputs of the model, and who makes them."""
    spec, config = _processor(manifest)
    if spec is None or spec.parts:
        return f"by the processor {_code(manifest.processor.name)}"
    tensors = spec.open(config, {}).inputs
    said = ", ".join(f"{_text(t.name)} {_text(' x '.join(map(str, t.shape)))} {_text(t.dtype)}" for t in tensors)
    return f"{said}, by the processor {_code(spec.name)}"


def _tag(manifest: Manifest) -> str | None:
    """What the Hub calls its task; None where nobody said what it is for."""
    if manifest.task or not manifest.former_returns:
        return manifest.tag or manifest.task or None
    try:
        task = former_task(manifest.former_returns, manifest.processor, default_registry())
    except PocketzooError:
        return None
    return pipeline_tag(task, manifest.processor, default_registry())


def _base(backbone: str) -> str | None:
    """The repository it was made from, which the Hub shows as its origin."""
    return backbone.removeprefix("hf://").split("@")[0] if backbone.startswith("hf://") else None
