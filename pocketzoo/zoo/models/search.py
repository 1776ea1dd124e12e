"""Search the Hub for models that a registered loader can load."""

from __future__ import annotations

from dataclasses import dataclass

from pocketzoo.core.errors import UnsupportedModelError
from pocketzoo.core.untrusted.exits import survives_exit
from pocketzoo.zoo.catalog.registry import Registry
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.models.resolver import Resolver, find_loader


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A search result: a model of the Hub, and the loader that reads it or the reason why none does."""

    repo_id: str
    task: str
    library: str
    license: str
    parameters: int | None  # None where the Hub does not state it
    downloads: int
    loader: str  # that reads it; empty where none does
    reason: str = ""  # why none does


@survives_exit
def search(
    words: str,
    *,
    task: str | None = None,
    library: str | None = None,
    max_params: int | None = None,
    limit: int = 20,
    registry: Registry | Resolver | None = None,
) -> list[Found]:
    """Search models by name: those that can be loaded first, then the others with the reason.

    Raises:
        HubError: the Hub does not answer.
    """
    from pocketzoo.zoo.hub.repositories import find_models

    known = Resolver.of(registry).registry
    results = []
    for repository, parameters, downloads in find_models(words, task=task, library=library, limit=limit):
        if max_params is not None and parameters is not None and parameters > max_params:
            continue
        loader, reason = _loader(repository, known)
        if max_params is not None and parameters is None:
            loader, reason = "", "its size is unknown"
        results.append(
            Found(
                repo_id=repository.repo_id,
                task=repository.task,
                library=repository.library,
                license=repository.license,
                parameters=parameters,
                downloads=downloads,
                loader=loader,
                reason=reason,
            )
        )
    return sorted(results, key=lambda f: not f.loader)  # stable: the Hub's order within


def _loader(repository: Repository, registry: Registry) -> tuple[str, str]:
    try:
        return find_loader(repository, registry).name, ""
    except UnsupportedModelError as error:
        return "", error.message.partition("(")[2].removesuffix(")") or error.message
