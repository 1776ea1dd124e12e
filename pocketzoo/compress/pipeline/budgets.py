"""The budgets that a step's own config sets, and whether a graph meets them."""

from __future__ import annotations

from typing import Any

from pocketzoo.compress.pipeline.graph_scores import Judge
from pocketzoo.compress.pipeline.job import Job
from pocketzoo.core.errors import DataError
from pocketzoo.zoo.artifacts.driver import Graphs
from pocketzoo.zoo.artifacts.drivers import artifact_of
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.catalog.compressor import Compressor


def budgets_of(compressor: Compressor, config: Any) -> dict[str, float]:
    """The budgets that a config sets itself, by ``BUDGETS``."""
    own = {name: getattr(config, name) for name in sorted(compressor.budgets)}
    return {name: budget for name, budget in own.items() if budget is not None}


def least_sqnr(compressor: Compressor, config: Any) -> float | None:
    """The dB that a config asks for of every output; None where it asks for none."""
    return budgets_of(compressor, config).get("min_sqnr")


def own_judge(bundle: Bundle, compressor: Compressor, job: Job) -> Judge:
    """Of graphs against the float graph that a step begins with.

    Raises:
        DataError: there are no validation samples.
    """
    if not len(job.validation.split):
        raise DataError(
            f"{job.dataset.name} has no validation samples, which a budget for {compressor.name} needs",
            "give more data",
        )
    if bundle.path == job.source.path:
        return job.judge
    return Judge(artifact_of(bundle), job.validation, task=job.task, held=job.settings.outputs)


def beyond_budget(own: Judge, compressor: Compressor, config: Any, graph: Graphs) -> str:
    """Which budget of its config a graph does not meet; "" if it meets them."""
    budgets, score = budgets_of(compressor, config), own.score(graph)
    sqnr = score.sqnr
    if "min_sqnr" in budgets and sqnr is not None and sqnr < budgets["min_sqnr"]:
        of = f" of output {score.worst!r}" if len(score.outputs) > 1 or score.parts else ""
        return f"the SQNR{of} is {sqnr:.1f} dB, at least {budgets['min_sqnr']:.1f} dB are asked for"
    if "max_drop" in budgets and (drop := own.drop(graph)) > budgets["max_drop"]:
        return own.told(drop, budgets["max_drop"], so_far=False)
    return ""
