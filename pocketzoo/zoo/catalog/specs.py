"""The specs that plugins declare: frozen facts, known before anything is downloaded. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pocketzoo.core.renamed import warn_renamed
from pocketzoo.zoo.catalog.signature import Dim

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pocketzoo.zoo.catalog.dataset import Dataset

C = TypeVar("C", bound=type)
FeatureKind = Literal["map", "vector", "sequence", "mask"]
WINDOW = 128  # tokens that a language model learns from at once, and is scored on, where nothing else is asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The image or vector input of a backbone, and the preprocessing from an image to it.

    An image is resized so that its shorter side is ``resize``, and its center of ``shape[2:]`` is cut out; with
    ``stretch`` it is resized to ``shape[2:]`` whatever its proportions. The longer side is a whole number of pixels by
    ``longer``. Then pixels are scaled to ``value_range``, and
    ``(x - mean) / std`` is taken per channel.
    """

    shape: tuple[Dim, ...]  # ("batch", 3, 224, 224)
    mean: tuple[float, ...]  # per channel, in units of value_range
    std: tuple[float, ...]
    resize: int  # pixels, shorter side
    name: str = "image"
    layout: str = "NCHW"
    dtype: str = "float32"
    value_range: tuple[float, float] = (0.0, 1.0)
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = "bilinear"
    stretch: bool = False
    stretched: tuple[int, ...] = ()  # (height, width) that ``stretch`` resizes to, where that is not ``shape[2:]``
    longer: Literal["round", "floor"] = "round"
    center: Literal["floor", "even"] = (
        "floor"  # where an odd number of pixels is cut off: the even half, as torchvision
    )

    @property
    def size(self) -> tuple[int, ...]:
        """The shape of one sample, without the batch axis."""
        return tuple(int(d) for d in self.shape[1:])

    @property
    def modality(self) -> str:
        """What it is in a word, as in the names of tasks: earlier plugins say rows of numbers by it too."""
        return {"NCHW": "image", "NC": "tabular"}.get(self.layout, "arrays")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """The text input of a language model: token ids (B, T), int64, padded with ``pad``.

    A model without ``mask`` computes it from the ids. One with it is given ones where a text has a token, whatever its
    id, and zeros where it was filled up; of ids that come without their mask, those that are ``pad`` are padding.
    """

    vocabulary: int
    # An id that no token of a text has: one of the vocabulary, or the first after it, which the model looks up nowhere.
    pad: int
    max_length: int  # tokens; longer texts are cut
    tokenizer: str = "tokenizer.json"  # the file among the backbone's own
    shape: tuple[Dim, ...] = ("batch", "sequence")
    name: str = "input_ids"
    layout: str = "NT"
    dtype: str = "int64"
    mask: str = ""  # the name of the input that says which ids are tokens, such as "attention_mask"; "": it has none
    types: str = ""  # the name of the input that says which of two texts a token is of: all zero here
    padding: Literal["anywhere", "end"] = "anywhere"  # end: ``pad`` is padding after a text's last other token alone
    checked: bool = False  # a text that has ``pad`` for a token is refused: the model would take it for padding
    cut: Literal["right", "left"] = "right"  # which end a text that is too long loses
    prefix: str = ""  # what is put in front of every text
    lowercase: bool = False  # before the tokenizer, whatever that does itself
    special: tuple[str, ...] = ()  # words that are one token each, besides those that the tokenizer's file says

    @property
    def modality(self) -> str:
        """What it is in a word, as in the names of tasks."""
        return "text"


Input = Any  # a config that a registered processor declares, such as these two


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """The features of a backbone: a map (B, C, H, W), a vector (B, C), a sequence (B, T, C), or the mask (B, T) of one.

    A sequence is zero at padding and nowhere else, which is how heads find the padding; one that comes with its mask,
    which is 0 at padding, may have any values there. The axis T has one name in both.
    """

    kind: FeatureKind
    shape: tuple[Dim, ...]

    @property
    def channels(self) -> int:
        if self.kind == "mask":
            return 1
        return int(self.shape[-1] if self.kind == "sequence" else self.shape[1])


# What a backbone gives: one tensor, or several by name, such as the levels of a feature pyramid.
FeatureSpecs = FeatureSpec | Mapping[str, FeatureSpec]
FEATURES = "features"  # what the features are called of a backbone that gives one tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSpec:
    """How a language model writes on: greedily, or by beam search with these defaults."""

    end: tuple[int, ...]  # ids that end a text
    start: tuple[int, ...] = ()  # ids that an answer begins with; empty: the text itself is continued
    positions: int = 0  # tokens that it can attend to, the text included; 0: any number
    not_followed: tuple[
        str, ...
    ] = ()  # settings of the repository that change what is written, and have no effect here


@dataclass(frozen=True, slots=True)
class Cut:
    """A named layer after which a backbone can end."""

    layer: str  # a submodule's name
    features: FeatureSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A file inside an installed Python package."""

    package: str  # import name
    path: str  # relative to the package's folder
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a Hugging Face Hub repository, pinned: ``revision`` is a commit, never a branch."""

    repo_id: str
    revision: str  # 40 hex digits
    filename: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where a state dict comes from. Every byte is hashed before anything parses it."""

    file: PackageFile | HubFile  # with ``shards``: the index that says which tensor is in which of them
    shards: tuple[HubFile, ...] = ()
    prefix: str = ""  # only keys that start with it, without it
    # How a file that is not a safetensors is read: the plugin's own code, run on bytes that match the pin.
    read: Callable[[Path], Mapping[str, Tensor]] | None = None
    convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None  # what was read to what is built


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneSpec:
    """A feature extractor."""

    name: str
    summary: str
    license: str  # SPDX
    input: Input
    features: FeatureSpecs  # several by name, where forward returns a dict of tensors
    build: Callable[[], nn.Module]  # untrained; imports torch in its body
    weights: Weights | None = None
    source: str = ""  # paper or home page
    cuts: tuple[Cut, ...] = ()
    head: str = ""  # the head it was pretrained with
    training: Mapping[str, object] = field(default_factory=dict)  # how it was pretrained, as far as that is recorded
    files: Mapping[str, Path] = field(default_factory=dict)  # what it is built from; copied into its bundles
    options: type[Any] | None = None  # of one in many shapes: a frozen dataclass as heads have, and the spec with it
    configure: Callable[[Any], BackboneSpec] | None = None
    generation: GenerationSpec | None = None  # of a language model that can write


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSpec:
    """A task layer. One with ``weights`` is pretrained: it belongs to ``backbone`` and knows its ``labels``.

    Of a backbone that gives several features it reads those that ``reads`` names. With one name it is built on that
    FeatureSpec and called with the tensor; with several, or "*" for all, on a mapping of them and with a mapping.

    ``options`` is a frozen dataclass that has defaults and checks itself; ``build`` takes one as its third argument.
    """

    name: str
    summary: str
    takes: tuple[FeatureKind, ...]
    build: Callable[..., nn.Module]  # (features, number of outputs[, options])
    reads: tuple[str, ...] = ()  # names of the features that it reads, or ("*",); empty: the only ones there are
    task: str = ""  # a task's name; "*" in it is what the model reads: "*-classification"
    decoder: str = ""  # of its outputs; "": that of the task
    decoder_config: Any = None  # a config of that; None: its defaults
    loss: str = "cross_entropy"  # of torch.nn.functional, where the task can have one; "": there is nothing to learn
    returns: str = ""  # as in earlier releases: what it outputs, which stands for a task
    metric: str = ""  # of earlier releases, without effect: the task has one
    options: type[Any] | None = None
    backbone: str = ""
    weights: Weights | None = None
    labels: Callable[[], tuple[str, ...]] | None = None
    outputs: int = 0  # of a pretrained head without labels; 0: as many as there are features
    generates: bool = False  # text is generated by its logits, where the backbone has a KV cache


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """A data set that has a name."""

    name: str
    summary: str
    license: str
    load: Callable[[], Dataset]


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Encoding:
    """How a runtime wants a quantized graph written; the ranges after it are common to all."""

    activations: Literal["uint8", "int8"]
    symmetric: bool  # activations have zero_point 0
    int32_bias: bool  # biases are int32 with scale = scale(x) * scale(w)
    fuses_add: bool  # a convolution's output that only an addition reads stays float: the two become one kernel
    dynamic: bool = False  # MatMulInteger and integer tables run: activations may be quantized dynamically
    splits_norm: bool = False  # it fuses an addition with the layer norm after it, and is slower for it
    required: bool = False  # a graph that is encoded otherwise is refused, not just slower
    # Operators besides layers that it runs on 8 bits between Q/DQ nodes. It may also say: HardSigmoid (and HardSwish,
    # as an addition and a product), LeakyRelu, Mul, Resize (the nearest), Sigmoid, Slice, Split.
    operators: tuple[str, ...] = ("Add", "AveragePool", "Concat", "GlobalAveragePool")


# Fields of the previous release -> where that is said now.
FORMER_TARGET_FIELDS = {
    "provider": "backend and facts",
    "engine": "backend",
    "versions": "facts",
    "engine_flags": "facts",
    "machine": "facts",
    "capability": "facts",
    "dla": "facts",
}
FORMER_FP8_FIELDS = {"capability": "fp8_capability of NvidiaFacts"}


def _reads_former(names: Mapping[str, str], keep: bool) -> Callable[[C], C]:
    """Decorate a spec whose fields went to a back end's facts: they are kept in ``former``, where that finds them."""

    def decorate(cls: C) -> C:
        construct = cls.__init__  # type: ignore[misc]

        @wraps(construct)
        def init(self: object, *args: Any, **fields: Any) -> None:
            given = {name: fields.pop(name) for name in sorted(names.keys() & fields.keys())}
            if before := {name: value for name, value in given.items() if value}:
                warn_renamed(", ".join(before), " and ".join(dict.fromkeys(names[name] for name in before)))
                if keep:
                    fields["former"] = {**fields.get("former", {}), **before}
            construct(self, *args, **fields)

        cls.__init__ = init  # type: ignore[misc]
        return cls

    return decorate


@_reads_former(FORMER_FP8_FIELDS, keep=False)
@dataclass(frozen=True, slots=True, kw_only=True)
class Fp8Encoding:
    """Which layers a runtime has kernels in float8 (e4m3) for; both sides have one scale per tensor."""

    conv_channels: int  # a convolution's least, in and out
    matmul_channels: int  # a matrix product's least, in and out
    kernel: int  # most values that a filter has for each channel in


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCosts:
    """What kernels take, in units of a multiply-accumulate of a matrix product or plain convolution."""

    depthwise: float  # a multiply-accumulate of a depthwise convolution
    value: float  # reading or writing a value of what goes in or comes out


@_reads_former(FORMER_TARGET_FIELDS, keep=True)
@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What a runtime or device supports and prefers. ``refuses`` and ``slow`` map ONNX operators to what to do."""

    name: str
    summary: str
    int8: Int8Encoding
    backend: str = ""  # that runs it, and builds for it; "": none that is known here, so that only graphs are written
    facts: Any = None  # what that back end knows of it besides: a frozen dataclass, of ``BackendSpec.facts``
    fp8: Fp8Encoding | None = None  # where it computes in that
    channel_multiple: int = 8  # pruned layers keep a multiple of this many channels: what its kernels are made for
    depthwise_multiple: int = 0  # the same of what depthwise convolutions work on; 0: no other
    int8_multiple: int = 0  # both where they become int8; 0: no other
    int8_depthwise_multiple: int = 0
    costs: KernelCosts | None = None  # by which pruned channels are to save time; None: channels alone count
    int8_costs: KernelCosts | None = None  # the same where layers become int8
    half_multiple: int = 8  # the same in half precision
    opset: int = 20  # graphs are written in
    newest_opset: int = 0  # it reads; 0: any
    domains: tuple[str, ...] = ("",)  # of operators it knows
    refuses: Mapping[str, str] = field(default_factory=dict)  # operator -> what to do instead
    slow: Mapping[str, str] = field(default_factory=dict)  # operator -> why, and what to do
    precisions: tuple[str, ...] = ("fp32",)  # of fp32, fp16, bf16, int8, fp8: what it computes in, best last
    keeps_fp32: tuple[str, ...] = ()  # operators that stay in float32 when a graph is turned into 16
    lacks_kernels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # precision -> operators in float32
    sparse: bool = False  # kernels for 2:4 zeros
    device: Literal["cpu", "gpu", "npu"] = "cpu"
    timed_here: bool | None = None  # by onnxruntime's CPU kernels; None: if it is a CPU and names no back end
    former: Mapping[str, Any] = field(default_factory=dict)  # fields of the previous release, for its back end

    def __post_init__(self) -> None:
        if self.timed_here is None:
            unknown = self.backend or self.former.get("engine")
            object.__setattr__(self, "timed_here", not unknown and self.device == "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExporterSpec:
    """A form a bundle can be exported to. ``export(graph, out, target, progress)`` writes ``out``.

    One that ``asks`` takes an ``ExportRequest`` as its fifth argument: the model's name, input and labels, and what is
    asked of an engine.
    """

    name: str
    summary: str
    suffix: str  # of the file it writes, or what its folder's name ends with
    default_target: str
    export: Callable[..., None]
    asks: bool = False
    folder: bool = False  # it writes a folder, which is never part of a bundle
    merges: bool = False  # the folders of several graphs become one; else that has a sub-folder for each


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A repository of the Hub at a commit, as a loader sees it: facts first, its small files once they are fetched."""

    repo_id: str
    commit: str
    sizes: Mapping[str, int] = field(default_factory=dict)  # path -> bytes
    library: str = ""  # what the Hub says it was made with: "timm", "transformers", ...
    task: str = ""
    license: str = ""
    config: Mapping[str, object] = field(default_factory=dict)  # its config.json
    files: Mapping[str, Path] = field(default_factory=dict)  # path -> verified local file
    digests: Mapping[str, str] = field(default_factory=dict)  # path -> sha256
    input: Any = None  # in a bundle: the config of its processor, by which its weights and graphs were made

    @property
    def name(self) -> str:
        """The pinned reference to it."""
        return f"hf://{self.repo_id}@{self.commit}"

    def weights(
        self,
        path: str,
        read: Callable[[Path], Mapping[str, Tensor]] | None = None,
        *,
        convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]] | None = None,
        shards: tuple[str, ...] = (),
    ) -> Weights | None:
        """One of its files as pinned weights; None in a bundle, which has weights of its own."""
        if path not in self.digests:
            return None
        file, *others = (
            HubFile(repo_id=self.repo_id, revision=self.commit, filename=name, sha256=self.digests[name])
            for name in (path, *shards)
        )
        return Weights(file=file, shards=tuple(others), read=read, convert=convert)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpec:
    """How repositories of one library become backbones. Code and pickles of a repository are never run."""

    name: str
    summary: str
    refuses: Callable[[Repository], str]  # why it cannot load it, from the facts alone; "" where it can
    wants: Callable[[Repository], tuple[str, ...]]  # the paths to fetch besides config.json
    backbone: Callable[[Repository], BackboneSpec]
    head: Callable[[Repository], HeadSpec | None]  # the one it was trained with
