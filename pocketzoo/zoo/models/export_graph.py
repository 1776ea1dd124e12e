"""Export a module to an ONNX graph and check it against the module."""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pocketzoo.core.errors import ExportError, ExportMismatchError, TooLargeError, UnsupportedModelError, message_of
from pocketzoo.core.files import replacing_file, scratch_folder
from pocketzoo.core.optional import require
from pocketzoo.zoo.backends.onnxruntime.session import open_session
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.data.processors.open_processor import as_processor
from pocketzoo.zoo.graphs.files.graph_files import weights_fit
from pocketzoo.zoo.graphs.files.weight_files import copy_graph
from pocketzoo.zoo.graphs.operators import LAYERS, OPERATORS
from pocketzoo.zoo.models.build import example_inputs
from pocketzoo.zoo.modules.outputs import ONLY, float_outputs, outputs_of
from pocketzoo.zoo.modules.signature import signature_of_module

LENGTHS = (1, 3, 12)  # of free axes besides the batch, where the model reads such
BATCHES = (1, 2, 5)  # the sizes every graph is checked at: 1 catches a frozen batch, 5 is seen nowhere else
TOLERANCE = 1e-4  # largest absolute difference, relative to the largest output; or
TIMES = 100  # times what torch itself is off, which for most models is a millionth
TURNS = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Constant")
ANY_SIZE = 2**62
_TRANSLATIONS: dict[int, Any] = {}  # opset -> torch's operators as ONNX functions
PartExample = tuple[Any, ...]
PartNames = tuple[list[str], list[str]]


def onnx_from_model(module: nn.Module, reads: Any, path: Path, *, opset: int = 20) -> float:
    """Write ``module`` as an ONNX graph whose named axes are free; return the largest relative difference to torch.

    ``reads`` is its processor, or the config of one: the inputs are called as that says, and the module takes them in
    that order. Its outputs are called as ``outputs_of`` has them: one tensor "logits", those of a dict by their names.
    Every output is held against torch's, at several batch sizes and lengths. Batch norm is folded into the convolutions
    before it.

    Raises:
        ExportError: torch cannot export the module.
        ExportMismatchError: the graph's outputs are outside ``TOLERANCE``, and not because 32 bits say no more. No file
            is left behind.
    """
    module, processor = module.eval(), as_processor(reads)
    most = {} if processor.lengths is None else {"max": processor.lengths[1]}
    dims: dict[str, Any] = {}  # an axis of one name is one axis, in whichever input
    for tensor in processor.inputs:
        for axis, name in tensor.free.items():
            dims.setdefault(name, torch.export.Dim(name, **({} if axis == tensor.batch else most)))
    inputs = tuple(example_inputs(processor).values())  # a batch of 2: with 1, torch would take the size for a constant
    program = _exported(
        module,
        inputs,
        _axes(module, [{axis: dims[name] for axis, name in tensor.free.items()} for tensor in processor.inputs]),
        [tensor.name for tensor in processor.inputs],
        _output_names(module, processor),
        opset,
    )
    with _written(program, module, path) as graph:
        return _compare(module, processor, graph)


@contextlib.contextmanager
def _written(program: Any, module: nn.Module, path: Path) -> Iterator[Path]:
    """A file of what torch exported, to be compared: after that it is at ``path``, a large one with weights alongside.

    Where the body raises, none is.
    """
    if weights_fit(sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))):
        with replacing_file(path) as temporary:
            program.save(str(temporary))
            yield temporary
        return
    with scratch_folder() as folder:
        program.save(str(folder / "graph.onnx"), external_data=True)
        yield folder / "graph.onnx"
        copy_graph(folder / "graph.onnx", path)


def _output_names(module: nn.Module, processor: Processor) -> list[str]:
    try:
        return [tensor.name for tensor in signature_of_module(module, processor).outputs]
    except UnsupportedModelError as error:
        raise ExportError(error.message, error.hint) from error
    except (Exception, SystemExit):  # the model's own code may fail in any way; torch says how when it exports
        return [ONLY]


def _axes(module: nn.Module, axes: Sequence[Mapping[int, Any]]) -> tuple[Any, ...]:
    """The free axes of each input, as torch wants them for a module's ``forward``: of ``*inputs`` together."""
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    return (tuple(axes),) if kinds[:1] == [inspect.Parameter.VAR_POSITIONAL] else tuple(axes)


def graph_from_part(
    module: nn.Module, examples: Sequence[PartExample], axes: Any, names: PartNames, path: Path, *, opset: int = 20
) -> float:
    """Write a part of a model as an ONNX graph; return the largest relative difference to torch on the examples.

    The graph is traced on the first of ``examples``, tuples of tensors and lists of them, and is to give the same as
    ``module`` on all; ``axes`` has the free axes of each. ``names`` are those of all inputs and outputs in order.

    Raises:
        ExportError, ExportMismatchError: as ``onnx_from_model``.
    """
    inputs, outputs = names
    program = _exported(module, examples[0], axes, inputs, outputs, opset)
    with _written(program, module, path) as graph:
        session = open_session(graph)
        worst = 0.0
        for arguments in examples:
            with torch.no_grad():
                reference_outputs = module(*arguments)
            flat = [t for value in arguments for t in (value if isinstance(value, list) else [value])]
            try:
                graph_outputs = session.run(outputs, {n: t.numpy() for n, t in zip(inputs, flat, strict=True)})
            except TooLargeError:
                raise
            except Exception as error:  # onnxruntime's own types
                reason = " ".join(message_of(error).split())
                raise ExportMismatchError(
                    f"the graph does not run on {flat[0].shape}: {reason}", "report it"
                ) from error
            for have, want in zip(graph_outputs, reference_outputs, strict=True):
                difference = float(np.abs(have - want.numpy()).max() / max(float(want.abs().max()), 1e-12))
                worst = float(np.maximum(worst, difference))  # a NaN stays
        if not worst <= TOLERANCE:
            raise ExportMismatchError(
                f"the graph is off by {worst:.1e} of the largest output (allowed: {TOLERANCE:.0e})", "report it"
            )
        return worst


def _exported(
    module: nn.Module, args: tuple[Any, ...], axes: Any, inputs: Sequence[str], outputs: Sequence[str], opset: int
) -> Any:
    """What torch exports, its weights named as in the module."""
    require("onnxruntime")  # which checks it, and an export takes long
    try:
        with quiet(), translations_kept(), torch.no_grad():
            program = torch.onnx.export(
                module,
                args,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=axes,
                external_data=False,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many types; all of them mean that this module does not export
        cause: BaseException = error
        while cause.__cause__ is not None:  # the outermost text is advice for authors of exporters
            cause = cause.__cause__
        reason = next((line for line in message_of(cause).splitlines() if line.strip()), type(cause).__name__)
        raise ExportError(f"torch cannot export this model: {reason}", "see which operator it names") from error
    if program is None:
        raise ExportError("torch exported nothing", "report this with the model's name")
    _fold_weights(program.model)
    _name_weights(program.model.graph, module)
    for node in program.model.graph:
        node.metadata_props.clear()  # where torch met it: a quarter of a small graph, with this machine's paths
    return program


@contextlib.contextmanager
def translations_kept() -> Iterator[None]:
    """Let torch gather its translations of operators once, and not for each export: it parses the source of hundreds.

    There is no setting for that. A version of torch that keeps them elsewhere gathers them each time.
    """
    try:
        from torch.onnx._internal.exporter import _registration

        registry: Any = _registration.ONNXRegistry
        own = vars(registry)["from_torchlib"]
    except (ImportError, AttributeError, KeyError):
        own = None
    if not isinstance(own, classmethod):  # elsewhere, or lent to another thread's export already
        yield
        return

    def gathered(opset_version: int) -> Any:
        if opset_version not in _TRANSLATIONS:
            _TRANSLATIONS[opset_version] = own.__func__(registry, opset_version)
        return _TRANSLATIONS[opset_version]

    registry.from_torchlib = staticmethod(gathered)
    try:
        yield
    finally:
        registry.from_torchlib = own


def _fold_weights(model: Any) -> None:
    """Compute the weights of layers that follow from constants, as those of weight norm do, whatever their size.

    The exporter folds small ones only, and what is left is computed in each run and can be no layer's weight. Turned
    ones stay: a weight that two layers read would be stored twice.
    """
    from onnxscript import optimizer

    folded: set[Any] = set()
    for node in model.graph:
        weight = _weight(node)
        if weight is not None:
            chain = _constant_nodes(weight, model.graph)
            folded |= chain if chain and any(n.op_type not in TURNS for n in chain) else set()
    if folded:
        limits = {"input_size_limit": ANY_SIZE, "output_size_limit": ANY_SIZE}
        optimizer.fold_constants(model, **limits, should_fold=lambda node: node in folded)
        optimizer.remove_unused_nodes(model)


def _weight(node: Any) -> Any:
    """The value that a layer's node reads as its weight; None for other nodes, and where it has none."""
    place = OPERATORS[node.op_type].weights[0] if node.op_type in LAYERS else len(node.inputs)
    return node.inputs[place] if place < len(node.inputs) else None


def _constant_nodes(value: Any, graph: Any) -> set[Any] | None:
    """The nodes that make a value, none where it is a constant; None where it depends on an input or on chance."""
    node = value.producer() if value is not None else None
    if node is None:
        return set() if value is None or value.name in graph.initializers else None
    if node.op_type.startswith(("Random", "Bernoulli", "Multinomial")) or node.op_type in ("If", "Loop", "Scan"):
        return None
    nodes = {node}
    for each in node.inputs:
        if (before := _constant_nodes(each, graph)) is None:
            return None
        nodes |= before
    return nodes


def _name_weights(graph: Any, module: nn.Module) -> None:
    """Name the weights of layers as the module does.

    The exporter turns a linear layer on sequences into a MatMul with a transposed constant of its own naming ("val_7"),
    and calls a weight that was computed by what computed it ("mul_3"); then nobody could say which layer to skip.
    """
    parameters = dict(module.named_parameters())
    weights = {name: value for name, value in parameters.items() if value.ndim == 2}
    modules = dict(module.named_modules())
    taken = {value.name for node in graph for value in (*node.inputs, *node.outputs) if value is not None}
    taken.update(graph.initializers, (value.name for value in (*graph.inputs, *graph.outputs)))
    for node in graph:
        weight = _weight(node)
        constant = graph.initializers.get(weight.name) if weight is not None else None
        if constant is None or constant.name in parameters:
            continue
        array = constant.const_value.numpy()
        same = (n for n, w in weights.items() if w.shape[::-1] == array.shape and np.array_equal(w.detach().T, array))
        names = [*(same if node.op_type == "MatMul" else ()), *_layer_of(node, array.size, modules)]
        constant.name = next((name for name in names if name not in taken), constant.name)
        taken.add(constant.name)


def _layer_of(node: Any, size: int, modules: dict[str, nn.Module]) -> list[str]:
    """What the module in whose code a node was met calls its weight, if that is as large; from the inside out."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError):
        return []
    sizes = {path: getattr(modules.get(path), "weight", None) for path in reversed(scopes) if path in modules}
    return [f"{path}.weight" for path, w in sizes.items() if isinstance(w, torch.Tensor) and w.numel() == size]


def _compare(module: nn.Module, processor: Processor, path: Path) -> float:
    session = open_session(path)
    differences: dict[str, list[float]] = {}
    for size, length in _settings(processor):
        inputs = {name: torch.from_numpy(x) for name, x in processor.random(size, length).items()}
        try:
            with torch.no_grad():
                expected = {name: out.numpy() for name, out in outputs_of(module(*inputs.values())).items()}
            feed = {name: x.numpy() for name, x in inputs.items()}
            actual = dict(zip(expected, session.run(list(expected), feed), strict=True))
        except TooLargeError:
            raise
        except Exception as error:  # torch's and onnxruntime's own types
            reason = " ".join(message_of(error).split())
            raise ExportMismatchError(
                f"it does not run at batch {size}: {reason}", "a view or reshape in the model fixes the batch size"
            ) from error
        for name, want in expected.items():
            if actual[name].shape != want.shape:
                of = f" as {name!r}" if len(expected) > 1 else ""
                raise ExportMismatchError(
                    f"at batch {size} the graph outputs {actual[name].shape}{of}, torch {want.shape}",
                    "a view or reshape in the model fixes the batch size",
                )
            differences.setdefault(name, []).append(_difference(actual[name], want))
    worst = {name: float(np.max(each)) for name, each in differences.items()}  # Python's max would drop a NaN
    if not all(value <= TOLERANCE for value in worst.values()):
        rounding = _rounding(module, processor)
        for name, value in worst.items():
            if not (value <= TOLERANCE or value <= TIMES * rounding.get(name, 0.0)):  # NaN is a mismatch as well
                of = f" in {name!r}" if len(worst) > 1 else ""
                raise ExportMismatchError(
                    f"the graph is off by {value:.1e} of the largest output{of} (allowed: {TOLERANCE:.0e})",
                    "check the model for NaN, randomness or operators that differ between torch and ONNX",
                )
    return max(worst.values())


def _settings(processor: Processor) -> list[tuple[int, int]]:
    """Batch sizes and lengths that a graph is checked at; a length of 0 is as is usual."""
    settings = [(size, 0) for size in BATCHES]
    if processor.lengths is not None:
        least, most = processor.lengths
        settings += [(2, length) for length in LENGTHS if least <= length <= most]
    return settings


def _difference(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """The largest difference relative to the largest value; the fraction that differs of what is not floating point."""
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(actual != expected)) if expected.size else 0.0
    return float(np.abs(actual - expected).max(initial=0) / max(np.abs(expected).max(initial=0), 1e-12))


def _rounding(module: nn.Module, processor: Processor) -> dict[str, float]:
    """How far torch itself is off for its 32 bits: far where large numbers cancel, as in a model that is cut badly.

    By output; empty where nobody can say: chance is inside, or it does not run in 64 bits.
    """
    inputs = example_inputs(processor, BATCHES[-1]).values()
    with torch.no_grad():
        actual, again = (float_outputs(module(*inputs)) for _ in range(2))
        try:
            doubled = (x.double() if x.is_floating_point() else x for x in inputs)
            expected = float_outputs(copy.deepcopy(module).double()(*doubled))
        except Exception:  # whatever a module in 64 bits stumbles over
            return {}
    return {
        name: float((value - expected[name]).abs().max() / expected[name].abs().max())
        for name, value in actual.items()
        if torch.equal(value, again[name])
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back the exporter's chatter (a line for every missing torchvision operator); errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
