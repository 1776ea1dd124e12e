"""Graphs run with what their outputs are selected from, so that these can be held against another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from pocketzoo.core.arrays import Arrays
from pocketzoo.zoo.artifacts.driver import Composite, Start
from pocketzoo.zoo.bundles.manifest import MODEL
from pocketzoo.zoo.catalog.backend import Runner
from pocketzoo.zoo.catalog.signature import ModelSignature


class SelectingRunner(Composite):
    """A graph whose runs also give the tensors that outputs are selected from, after the outputs."""

    def __init__(self, runner: Runner, tensors: Mapping[str, str], outputs: tuple[str, ...]) -> None:
        """Take over the runner of a graph that has the ``tensors``, called -> name, as outputs besides its own."""
        super().__init__({MODEL: runner})
        self._runner, self._tensors, self._outputs = runner, tensors, outputs

    @property
    def signature(self) -> ModelSignature:
        """That of the graph, with the tensors as outputs."""
        known = self._runner.signature
        more = (replace(known.output(name), name=called, feeds="") for called, name in self._tensors.items())
        return replace(known, outputs=(*map(known.output, self._outputs), *more))

    def infer(self, inputs: Arrays, out: Arrays | None = None) -> Arrays:
        """``Runner.infer``."""
        values = self._runner.infer(inputs, out)
        return {name: values[name] for name in self._outputs} | {c: values[name] for c, name in self._tensors.items()}

    def __enter__(self) -> SelectingRunner:
        return self


def with_selections(start: Start, folder: Path) -> Start:
    """``start`` for comparisons: of a graph with outputs that are selected, what they are selected from comes out, too.

    ``folder`` takes copies of such graphs while they run. What a back end built of a graph is started as it is.
    """

    def started(path: Path) -> Runner:
        if path.suffix != ".onnx" or find_spec("onnx") is None:
            return start(path)
        import onnx

        from pocketzoo.zoo.graphs.files.graph_files import save_graph
        from pocketzoo.zoo.graphs.files.load_graph import read_graph
        from pocketzoo.zoo.graphs.foreign.selections import selections, with_outputs
        from pocketzoo.zoo.graphs.index import GraphIndex

        model = onnx.load(path, load_external_data=False)
        outputs = tuple(value.name for value in model.graph.output)
        selected = selections(GraphIndex(model))
        tensors = {called: name for output, each in selected.items() for called, name in each.tensors(output).items()}
        if not tensors or not set(outputs).isdisjoint(tensors):
            return start(path)
        copy = folder / f"{len(list(folder.iterdir()))}.onnx"
        save_graph(with_outputs(read_graph(path), tensors.values()), copy)
        return SelectingRunner(start(copy), tensors, outputs)

    return started
