"""Conformance of every spec: name, summary, license, pinned files."""

from __future__ import annotations

import re
from dataclasses import fields

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from pocketzoo.testing.checks import wrong
from pocketzoo.zoo.catalog.registry import Entry, Registry
from pocketzoo.zoo.catalog.specs import HubFile, PackageFile, Weights

LONGEST = 110  # characters of a summary, which is a cell of a table


def test_its_name_can_be_typed(entry: Entry) -> None:
    """Small letters, digits and - . _ need no quotes in any shell, and no escapes in a file's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", entry.name):
        wrong(f"{entry.kind} {entry.name!r} is hard to type", "use small letters, digits, and - . _ between them")


def test_its_summary_is_a_line(entry: Entry) -> None:
    """It is shown by ``pocketzoo list``."""
    summary = entry.spec.summary
    if not summary.strip() or summary != summary.strip() or "\n" in summary or len(summary) > LONGEST:
        wrong(
            f"the summary of {entry.kind} {entry.name!r} is {summary!r}",
            f"say what it is in one line of 1 to {LONGEST} characters",
        )


def test_its_license_is_known(licensed: Entry) -> None:
    """An SPDX expression: it is written into every bundle that is made from it."""
    try:
        canonicalize_license_expression(licensed.spec.license)
    except InvalidLicenseExpression as error:
        wrong(
            f"the license of {licensed.kind} {licensed.name!r} is {licensed.spec.license!r}: {error}",
            'give its SPDX identifier, such as "Apache-2.0"; for any other text "LicenseRef-" and a name',
        )


def test_its_weights_are_pinned(pretrained: Entry) -> None:
    """Every byte that is read is known beforehand, and nothing but the plugin's own code unpickles."""
    weights = pretrained.spec.weights
    file = weights.file
    whose = f"the weights of {pretrained.kind} {pretrained.name!r}"
    if not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        wrong(f"{whose} have the sha256 {file.sha256!r}", "give 64 hex digits: sha256sum FILE prints them")
    if isinstance(file, HubFile):
        name = file.filename
        if not re.fullmatch(r"[0-9a-f]{40}", file.revision):
            wrong(f"{whose} are of the revision {file.revision!r}", "give a commit of 40 hex digits; a branch moves")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", file.repo_id):
            wrong(f"{whose} are in the repository {file.repo_id!r}", 'write it as "owner/name"')
    elif isinstance(file, PackageFile):
        name = file.path
        if name.startswith("/") or ".." in name.split("/"):
            wrong(f"{whose} are at {name!r}", "give a path below the package's folder")
    else:
        wrong(f"{whose} are in a {type(file).__name__}", "use PackageFile or HubFile")
    if not name.endswith(".safetensors") and weights.read is None:
        wrong(f"{whose} are in {name!r}, which nothing can read", "convert it to safetensors, or give Weights a read")


def test_it_is_declared_the_same_each_time(entry: Entry, registry: Registry) -> None:
    """Its facts do not depend on when the hook is called."""
    hooks = getattr(registry.manager.hooks.hook, f"pocketzoo_{entry.kind}s").get_hookimpls()
    (hook,) = [h for h in hooks if h.plugin_name == entry.plugin]
    again = next((spec for spec in hook.function() if spec.name == entry.name), None)
    then, now = _facts(entry.spec), _facts(again)
    changed = [name for name in then if then[name] != now.get(name)]
    if changed:
        wrong(
            f"{entry.kind} {entry.name!r} is declared with another {', '.join(changed)} when the hook is called again",
            "let the hook return constants",
        )


def _facts(spec: object) -> dict[str, object]:
    """What is data; what can be called may be made anew each time."""
    if spec is None:
        return {}
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}  # type: ignore[arg-type]
    return {
        name: value.file if isinstance(value, Weights) else value
        for name, value in values.items()
        if not callable(value)
    }
