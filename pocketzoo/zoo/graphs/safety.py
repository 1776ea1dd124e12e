"""Reject graphs that refer to external files or custom operators, or are too large, from their bytes. No onnx needed.

A graph is data, but it can name files for its weights and operators that other code brings, and a kilobyte of functions
that call functions stands for more nodes than any memory holds. Only the fields that lead there are looked at, so a
large graph takes no longer than it has nodes. Field numbers are those of onnx.proto, wire types those of "Encoding" in
the documentation of Protocol Buffers.
"""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pocketzoo.core.errors import UnsafeFileError
from pocketzoo.core.untrusted.limits import NESTING, NODES, TENSOR_VALUES
from pocketzoo.zoo.graphs.function_calls import Callee, Calls, expanded

# The operators of the standard, and those that onnxruntime brings itself: of these, the ones that are arithmetic.
ONNXRUNTIME = "com.microsoft"
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", ONNXRUNTIME})
# Left out are those that load a library's compiled code (EPContext and what it stands for), call Python (PythonOp) or
# another library (ATen), run graphs of their own (BeamSearch), or match patterns (Tokenizer).
CONTRIB = frozenset({
    "Attention", "BiasAdd", "BiasDropout", "BiasGelu", "BiasSoftmax", "BiasSplitGelu", "CDist",
    "ConvTransposeWithDynamicPads", "CropAndResize", "DecoderMaskedMultiHeadAttention", "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul", "EmbedLayerNormalization", "ExpandDims", "FastGelu", "FusedConv", "FusedGemm",
    "FusedMatMul", "FusedMatMulActivation", "GatherBlockQuantized", "GatherND", "Gelu", "GridSample", "GroupNorm",
    "GroupQueryAttention", "Inverse", "LongformerAttention", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16",
    "MatMulIntegerToFloat", "MatMulNBits", "MaxpoolWithMask", "MoE", "MulInteger", "MultiHeadAttention",
    "NGramRepeatBlock", "NhwcConv", "NhwcFusedConv", "NhwcMaxPool", "PackedAttention", "PackedMultiHeadAttention",
    "Pad", "QAttention", "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat",
    "QLinearConv", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean",
    "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE", "QOrderedMatMul", "QuantizeLinear",
    "QuantizeWithOrder", "QuickGelu", "ReduceSumInteger", "RelativePositionBias", "RemovePadding", "RestorePadding",
    "RotaryEmbedding", "SampleOp", "SimplifiedLayerNormalization", "SkipGroupNorm", "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization", "SparseAttention", "SparseToDenseMatMul", "Trilu", "UnfoldTensor", "Unique",
    "WordConvEmbedding",
})  # fmt: skip

# Message -> field number -> the message in it. What is not listed here cannot lead to a node or a tensor.
_INSIDE = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {},
}
# Message -> field number -> what the text in it is called.
_TEXTS = {
    "Node": {4: "op_type", 7: "domain", 8: "overload"},
    "Function": {1: "name", 10: "domain", 13: "overload"},
    "Entry": {1: "key", 2: "value"},
}
_DIMS = {"Tensor": 1, "Sparse": 3}  # field numbers
_BITS = 8  # values that a byte of a tensor may hold, at the most
ONE_FILE = "save it as one file: onnx.save(onnx.load(path), 'one.onnx')"


@dataclass(frozen=True, slots=True)
class References:
    """What a graph needs besides itself, and how large it is."""

    operators: frozenset[tuple[str, str]]  # (domain, name), without those that the file defines
    files: frozenset[str]  # as they are written in it
    nodes: int = 0  # with those of graphs inside nodes, and of functions wherever they are called
    nesting: int = 0  # of graphs inside nodes, or of functions that call functions
    values: int = 0  # of the largest tensor that is declared, and neither stored nor in another file


KNOWN = 64  # graphs of which it is kept what they refer to
_known: dict[str, References] = {}  # by the sha256 of the file


class _NotOnnxError(ValueError):
    pass


def references(path: Path, digest: str = "") -> References:
    """Read what a graph refers to.

    ``digest``: the sha256 of the file, where the caller just made sure of it: what was read of such bytes is not read
    again.

    Raises:
        UnsafeFileError: it is not an ONNX file: what cannot be read here may be read otherwise by others.
        TooLargeError: graphs in nodes of graphs ... are nested too deep to be read.
    """
    if digest in _known:
        return _known[digest]
    reader = _Reader(str(path))
    try:
        with path.open("rb") as file:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        reader.walk(data, "Model", reader.calls, 0)
        nodes, calls_deep = expanded(reader.calls, reader.functions)
    except (ValueError, IndexError) as error:  # of mmap for an empty file, of text that is not UTF-8, of an early end
        raise UnsafeFileError(f"{path} is not an ONNX graph: {error}", "rebuild the graph") from error
    except RecursionError as error:
        raise NESTING.refusal(f"{path} has graphs in nodes of graphs, nested too deep") from error
    # A function that is called like one of onnxruntime's own does not make that name harmless.
    own = {(domain, name) for domain, name, _ in reader.functions if domain not in KNOWN_DOMAINS}
    found = References(
        operators=frozenset(reader.operators - own),
        files=frozenset(reader.files),
        nodes=nodes,
        nesting=max(reader.nesting, calls_deep),
        values=reader.values,
    )
    if digest:
        if len(_known) >= KNOWN:
            _known.pop(next(iter(_known)))
        _known[digest] = found
    return found


def check_graph(
    path: Path, *, files: Collection[str] = (), domains: Collection[str] = KNOWN_DOMAINS, digest: str = ""
) -> None:
    """Refuse a graph that needs anything but itself, ``files`` that were checked, and operators of known ``domains``.

    ``digest`` as in ``references``.

    Raises:
        UnsafeFileError: it names another file, or an operator that needs foreign code; or is not a graph.
        TooLargeError: it has more nodes than the limit, is nested deeper, or declares a larger tensor.
    """
    contents = references(path, digest)
    if outside := sorted(contents.files - set(files)):
        what = leads_away(outside[0]) or "another file"
        raise UnsafeFileError(f"{path} keeps weights in {outside[0]!r}, {what}", ONE_FILE)
    check_operators(contents, path, domains)
    check_size(contents, path)


def leads_away(location: str) -> str:
    """What a place of weights is that is not in the graph's own folder; "" where it may be there."""
    if ".." in location.replace("\\", "/").split("/"):
        return "a path outside the folder"
    return "an absolute path" if location.startswith(("/", "\\")) or location[1:2] == ":" else ""


def check_operators(contents: References, path: Path, domains: Collection[str] = KNOWN_DOMAINS) -> None:
    """Raises:
    UnsafeFileError: an operator of another domain, or one of onnxruntime's own that is not known to be arithmetic.
    """
    for domain, name in sorted(contents.operators):
        if domain not in domains:
            raise UnsafeFileError(
                f"{path} needs the operator {domain}.{name}, which is not standard and could run foreign code",
                "export it again with standard operators",
            )
        if domain == ONNXRUNTIME and name not in CONTRIB:
            raise UnsafeFileError(
                f"{path} needs the operator {domain}.{name}, which is not among those that are known to run no foreign "
                "code",
                "export it again with standard operators",
            )


def check_size(contents: References, path: Path) -> None:
    """Raises:
    TooLargeError: it has more nodes than the limit, is nested deeper, or declares a larger tensor.
    """
    NODES.check(contents.nodes, str(path))
    NESTING.check(contents.nesting, str(path), "levels of graphs or functions in each other")
    TENSOR_VALUES.check(contents.values, str(path), "values in one tensor that it declares and does not store")


@dataclass
class _Reader:
    """What was found so far in the messages of one file."""

    path: str
    operators: set[tuple[str, str]] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    calls: Calls = field(default_factory=Counter)  # of the main graph, and of those inside its nodes
    functions: dict[Callee, Calls] = field(default_factory=dict)
    nesting: int = 0
    values: int = 0

    def walk(self, data: memoryview, message: str, calls: Calls, depth: int) -> dict[str, str]:
        """Go through one message, inside ``depth`` graphs; returns its texts. What nodes call goes to ``calls``."""
        inside, names, dims_at = _INSIDE[message], _TEXTS.get(message, {}), _DIMS.get(message)
        texts: dict[str, str] = {}
        dims: list[int] = []
        if message == "Function":
            calls = Counter()
        elif message == "Graph":
            depth += 1
            self.nesting = max(self.nesting, depth)
            NESTING.check(depth, self.path, "levels of graphs nested too deep")
        for number, value in _fields(data):
            if number == dims_at:
                dims += [value] if isinstance(value, int) else _packed(value)
            elif isinstance(value, int):
                continue
            elif number in names:
                texts[names[number]] = str(value, "utf8")
            elif number in inside:
                entry = self.walk(value, inside[number], calls, depth)
                if inside[number] == "Entry" and entry.get("key") == "location":
                    self.files.add(entry.get("value", ""))
                    dims_at, dims = -1, []  # its length is that of the other file
        if message == "Node":
            self.operators.add((texts.get("domain", ""), texts.get("op_type", "")))
            calls[texts.get("domain", ""), texts.get("op_type", ""), texts.get("overload", "")] += 1
        elif message == "Function":
            self.functions[texts.get("domain", ""), texts.get("name", ""), texts.get("overload", "")] = calls
        elif dims:
            self._declared(message, dims, len(data))
        return texts

    def _declared(self, message: str, dims: list[int], size: int) -> None:
        """A tensor that is sparse, or larger than its bytes can be, is one only once somebody makes it."""
        values = math.prod(min(dim, 2**63) for dim in dims)  # a negative number is one of 64 bits here
        if message == "Sparse" or values > _BITS * size:
            self.values = max(self.values, values)


def _packed(data: memoryview) -> list[int]:
    values, at = [], 0
    while at < len(data):
        value, at = _varint(data, at)
        values.append(value)
    return values


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of a message by their numbers: bytes, and whole numbers of any length; the others are skipped."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind, number = tag & 7, tag >> 3
        if kind == 2:
            size, at = _varint(data, at)
            if at + size > end:
                raise _NotOnnxError("it is cut short")
            yield number, data[at : at + size]
            at += size
        elif kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:  # groups, which onnx.proto has none of
            raise _NotOnnxError(f"a field has the wire type {kind}")
    if at != end:
        raise _NotOnnxError("it is cut short")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise _NotOnnxError("a number is too long")
