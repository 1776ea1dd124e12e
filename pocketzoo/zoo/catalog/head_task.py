"""Which task a head is for, and how its outputs are decoded: from its own words, those of earlier releases included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pocketzoo.core.errors import PluginError, UnknownNameError, nearest
from pocketzoo.core.renamed import warn_renamed
from pocketzoo.zoo.catalog.described import SHIPS, Described, describe, provider, spec_of
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import HeadSpec
from pocketzoo.zoo.catalog.task import DecoderSpec, TaskSpec

ANY = "*"  # in the name of a head's task: the modality of what the model reads


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFacts:
    """What a bundle notes of what its outputs mean."""

    task: str = ""
    tag: str = ""  # the Hub's pipeline tag, where that is not the task's name
    provider: str = ""  # distribution and version that brings the task; "" where that is pocketzoo
    decoder: Described | None = None
    returns: str = ""  # the word of earlier releases for it


NO_ANSWERS = AnswerFacts()


def answer_facts(head: HeadSpec, model_input: Any, registry: Registry) -> AnswerFacts:
    """What a bundle notes of a model with this head and input.

    Raises:
        UnknownNameError: no plugin declares its task or decoder.
        PluginError: its decoder is for another task.
    """
    task = head_task(head, model_input, registry)
    return facts_of(task, head_decoder(head, task, model_input, registry), model_input, registry)


def facts_of(task: TaskSpec, decoder: Described, model_input: Any, registry: Registry) -> AnswerFacts:
    """The same of a task and a decoder."""
    tag, brings = pipeline_tag(task, model_input, registry), provider("task", task.name, registry)
    return AnswerFacts(
        task=task.name,
        tag="" if tag == task.name else tag,
        provider="" if brings == SHIPS else brings,
        decoder=decoder,
        returns=next(iter(task.former), ""),
    )


def modality(model_input: Any, registry: Registry) -> str:
    """What a model reads, in a word: "image", "text", "tabular", as processors have it; "" where nobody says.

    ``model_input`` is the config of its processor, or what a bundle has of it.
    """
    if isinstance(model_input, Described):
        return str(spec_of(model_input, "processor", registry)[0].modality)
    own = getattr(model_input, "modality", "")
    if own:
        return str(own)
    specs = (entry.spec for entry in registry.entries("processor").values())
    return next((str(spec.modality) for spec in specs if type(model_input) is spec.config), "")


def head_task(head: HeadSpec, model_input: Any, registry: Registry) -> TaskSpec:
    """The task of a head on a model with this input.

    Raises:
        UnknownNameError: no plugin declares it; the hint is the nearest that one does.
    """
    if head.task:
        name = head.task.replace(ANY, modality(model_input, registry))
        spec: TaskSpec = registry.get("task", name)
        return spec
    warn_renamed("returns", "task")
    return former_task(head.returns, model_input, registry)


def possible_tasks(head: HeadSpec, registry: Registry) -> list[TaskSpec]:
    """The tasks that models with a head may be for, by what they read."""
    if not head.task:
        return list(_tasks_once_called(head.returns, registry))
    return [e.spec for name, e in registry.entries("task").items() if fnmatchcase(name, head.task)]


def former_task(word: str, model_input: Any, registry: Registry) -> TaskSpec:
    """The task that a word of earlier releases for what a head returns stands for.

    Raises:
        UnknownNameError: it stands for none.
    """
    kind = modality(model_input, registry)
    meant = list(_tasks_once_called(word, registry))
    own = [spec for spec in meant if spec.name.startswith(f"{kind}-")]
    if not meant:
        known = sorted({each for entry in registry.entries("task").values() for each in entry.spec.former})
        raise UnknownNameError(
            f"no task is known for a head that returns {word!r}", registry.hint(nearest(word, known), "task")
        )
    return (own or meant)[0]


def _tasks_once_called(word: str, registry: Registry) -> Iterator[TaskSpec]:
    return (entry.spec for entry in registry.entries("task").values() if word in entry.spec.former)


def head_decoder(head: HeadSpec, task: TaskSpec, model_input: Any, registry: Registry) -> Described:
    """The decoder of a head's outputs: its own, or the task's; see ``completed_decoder``."""
    return completed_decoder(head.decoder or task.decoder, head.decoder_config, task, model_input, registry)


def completed_decoder(name: str, config: Any, task: TaskSpec, model_input: Any, registry: Registry) -> Described:
    """A decoder, completed for a model with this input, as a bundle keeps it; ``config`` None: its own defaults.

    Raises:
        UnknownNameError: no plugin declares it.
        PluginError: it is for another task.
    """
    spec = decoder_for(name, task, registry)
    if config is None and spec.config is not None:
        config = spec.config()
    if spec.complete is not None and config is not None:
        reads = spec_of(model_input, "processor", registry)[1] if isinstance(model_input, Described) else model_input
        config = spec.complete(config, reads)
    return describe("decoder", spec.name, config, registry)


def decoder_for(name: str, task: TaskSpec, registry: Registry) -> DecoderSpec:
    """The decoder called so, which has to be one for the task.

    Raises:
        UnknownNameError: no plugin declares it.
        PluginError: it is for other tasks.
    """
    try:
        spec: DecoderSpec = registry.get("decoder", name)
    except UnknownNameError as error:
        raise UnknownNameError(f"{error.message}, for the task {task.name}", error.hint) from error
    if task.name not in spec.tasks:
        fit = [n for n, entry in registry.entries("decoder").items() if task.name in entry.spec.tasks]
        raise PluginError(
            f"the decoder {name!r} is for {', '.join(spec.tasks)}, not for {task.name}",
            f"decoders for it: {', '.join(fit) or 'none is registered'}",
        )
    return spec


def pipeline_tag(task: TaskSpec, model_input: Any, registry: Registry) -> str:
    """What the Hub calls the task of a model with this input."""
    return task.tags.get(modality(model_input, registry)) or task.tags.get("") or task.name
