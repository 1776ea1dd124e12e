"""Resolve a reference to a spec, or to what a model is built of: from plugins, the Hub, and the files of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.core.errors import (
    BadReferenceError,
    HeadMismatchError,
    MissingPluginError,
    UnknownNameError,
    UnsafeFileError,
    UnsupportedModelError,
    nearest,
)
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import MalformedError, read_json
from pocketzoo.zoo.bundles.bundle import Bundle
from pocketzoo.zoo.bundles.manifest import GRAPH_ONLY, SINGLE, ModelRef
from pocketzoo.zoo.bundles.repository_loader import LOADER
from pocketzoo.zoo.bundles.saved_plans import find_compressor
from pocketzoo.zoo.catalog.compressor import Compressor
from pocketzoo.zoo.catalog.described import spec_of
from pocketzoo.zoo.catalog.processor import Processor
from pocketzoo.zoo.catalog.registry import Entry, Registry, default_registry
from pocketzoo.zoo.catalog.specs import BackboneSpec, FeatureSpecs, HeadSpec, LoaderSpec, Repository
from pocketzoo.zoo.data.processors.open_processor import open_config
from pocketzoo.zoo.hub.lock_file import Lock
from pocketzoo.zoo.hub.reference import HubRef, parse
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.stored_files import Stored
from pocketzoo.zoo.models.heads import configured, feature_choice, heads_that_fit, read_options
from pocketzoo.zoo.modules.features import FeatureChoice

if TYPE_CHECKING:
    from pocketzoo.zoo.hub.repositories import Listing, Remote

CONFIG = "config.json"
LARGEST = 64_000_000  # bytes of a file that is parsed as text


@dataclass(frozen=True, slots=True)
class Parts:
    """The specs a model is made of, resolved."""

    backbone: BackboneSpec
    head: HeadSpec
    declared: FeatureSpecs  # all features of the backbone, or after the cut
    choice: FeatureChoice  # what the head reads of them
    processor: Processor  # of the backbone, opened

    @property
    def features(self) -> FeatureSpecs:
        """What the head is built on."""
        return self.choice.built_on


@dataclass(frozen=True, slots=True)
class Structure:
    """All that the modules of a bundle and of those compressed from it are built with: nothing is looked up after."""

    parts: Parts
    compressors: Mapping[str, Compressor]  # of the bundle's steps, by name: they replay its plans

    @property
    def generates_text(self) -> bool:
        """Whether generation graphs can be made of such a model."""
        return self.parts.backbone.generation is not None and self.parts.head.generates


@dataclass(frozen=True, slots=True)
class Fetched:
    """A repository whose files are in the store, and who reads it."""

    repository: Repository
    loader: LoaderSpec
    files: tuple[Stored, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Resolver:
    """Finds what a reference stands for; made where a call enters the library, and passed to what needs it.

    Functions with an argument ``registry`` take one as well, such as ``registry=Resolver.locked("zoo.lock")``. Without
    a lock a branch is where it is now; no file of the working directory is read.
    """

    own_registry: Registry | None = None  # None: everything installed, loaded when it is first asked for
    lock: Lock = field(default_factory=Lock)
    store: Store = field(default_factory=Store)
    offline: bool = False  # open no socket; HF_HUB_OFFLINE says so for every resolver
    # (kind, pinned reference) -> what was resolved so far, from the Hub or from a bundle's own files
    _known: dict[tuple[str, str], Entry] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, registry: Registry | Resolver | None) -> Resolver:
        """The resolver that a caller passes as ``registry``, or one for its registry; None: everything installed."""
        return registry if isinstance(registry, Resolver) else cls(registry)

    @classmethod
    def locked(cls, path: str | Path, registry: Registry | None = None) -> Resolver:
        """One that resolves references to the Hub as a lock file pins them.

        Raises:
            LockError: there is no such file, or it is damaged.
        """
        return cls(registry, lock=Lock.read(path))

    @property
    def registry(self) -> Registry:
        """What plugins declare."""
        return self.own_registry or default_registry()

    # -- specs

    def entry(self, kind: str, name: str, progress: Progress = SILENT) -> Entry:
        """What is called ``name``; a repository of the Hub is fetched when it is not stored.

        Raises:
            UnknownNameError: there is none; the hint is the nearest name.
            HubError: the Hub does not give the repository.
        """
        return self._remote(kind, name, progress) if name.startswith("hf:") else self.registry.entry(kind, name)

    def spec(self, kind: str, name: str, progress: Progress = SILENT) -> Any:
        """The spec of ``entry``."""
        return self.entry(kind, name, progress).spec

    def known(self, kind: str, pinned: str) -> Entry | None:
        """What was resolved before under this pinned reference."""
        return self._known.get((kind, pinned))

    def _remote(self, kind: str, name: str, progress: Progress) -> Entry:
        ref = self.lock.pin(hub_reference(name))
        if kind not in ("backbone", "head") or ref.part != ("head" if kind == "head" else ""):
            raise UnknownNameError(f"{name!r} is no {kind}", "hf://org/name is a backbone, hf://org/name#head its head")
        if ref.pinned and (entry := self.known(kind, str(ref))):
            return entry
        fetched = self.fetch(ref, progress)
        if fetched.loader is LOADER:
            fetched.loader.backbone(fetched.repository)  # says why it is none
        entry = self.known(kind, str(ref.at(fetched.repository.commit)))
        if entry is None:
            raise UnknownNameError(f"{name} has no head known to {fetched.loader.name}", "fit a new one: --head linear")
        return entry

    # -- repositories

    def pinned(self, name: str, progress: Progress = SILENT) -> HubRef:
        """A reference to the Hub at the commit that it stands for now.

        Raises:
            HubError: the Hub does not give it.
        """
        ref = self.lock.pin(hub_reference(name))
        return ref if ref.pinned else ref.at(self._listing(ref, progress).commit)

    def fetch(self, ref: HubRef, progress: Progress = SILENT) -> Fetched:
        """Look a repository up, choose its loader, and bring what the loader wants into the store.

        Raises:
            HubError: the Hub does not give it.
            UnsupportedModelError: no loader reads it.
            UnsafeFileError: a file of it is not what its name says.
        """
        from pocketzoo.zoo.hub.download import fetch_files  # here, as the Hub's client takes long to import

        store, listing = self.store, self._listing(ref, progress)
        known = store.known(listing.repo_id, listing.commit)
        remotes = {file.path: file for file in listing.files}
        config: dict[str, Any] = {}
        if CONFIG in remotes and remotes[CONFIG].size <= LARGEST:
            (file,) = fetch_files(listing, [remotes[CONFIG]], store, offline=self.offline)
            config = _json(store.blob(file.sha256), listing.repo_id)
        repository = Repository(
            repo_id=listing.repo_id,
            commit=listing.commit,
            sizes={file.path: file.size for file in listing.files},
            library=listing.library,
            task=listing.task,
            license=listing.license,
            config=config,
        )
        loader = find_loader(repository, self.registry)
        paths = [path for path in dict.fromkeys((CONFIG, *loader.wants(repository))) if path in remotes]
        for path in paths:
            if not path.endswith((".safetensors", ".onnx")) and remotes[path].size > LARGEST:
                raise UnsafeFileError(
                    f"{path} of {ref.repo_id} has {remotes[path].size:,} bytes", "do not use this model"
                )
        requested = [remotes[path] for path in paths]
        _say_what_comes(ref, listing.commit, [file for file in requested if file.path not in known], progress)
        stored = fetch_files(listing, requested, store, progress, offline=self.offline)
        repository = replace(
            repository,
            files={file.path: store.blob(file.sha256) for file in stored},
            digests={file.path: file.sha256 for file in stored},
        )
        self._known.update(_offered(repository, loader))  # so that a model that cannot be built is found now
        return Fetched(repository, loader, tuple(stored))

    # -- bundles

    def with_sources(self, bundle: Bundle) -> Resolver:
        """A resolver that knows the Hub backbone of a bundle from the bundle's own files: no network, no store."""
        name = bundle.manifest.model.backbone
        if not name.startswith("hf:") or self.known("backbone", name):
            return self
        ref, files = hub_reference(name), bundle.source_files()
        repository = Repository(
            repo_id=ref.repo_id,
            commit=ref.revision,
            license=bundle.manifest.license,
            config=_json(files[CONFIG], ref.repo_id),
            files=files,
            input=spec_of(bundle.manifest.processor, "processor", self.registry)[1],
        )
        loader: LoaderSpec = self.registry.get("loader", str(bundle.manifest.provenance.get("loader", "")))
        return replace(self, _known={**self._known, **_offered(repository, loader)})

    def _listing(self, ref: HubRef, progress: Progress) -> Listing:
        from pocketzoo.zoo.hub.repositories import look_up

        return look_up(ref.repo_id, ref.revision, self.store, progress, offline=self.offline)

    def parts(self, ref: ModelRef) -> Parts:
        """Look up what a model is made of.

        Raises:
            UnknownNameError: no such backbone, head or cut.
            RecipeError: backbone or head has no such option.
            UnsupportedModelError: the backbone cannot read images of ``ref.input_size``.
            HeadMismatchError: the head cannot read the features; the hint names heads that can.
        """
        backbone: BackboneSpec = self.spec("backbone", ref.backbone)
        head: HeadSpec = self.spec("head", ref.head)
        read_options(head, ref.head_options)
        backbone = configured(backbone, ref.backbone_options)
        if ref.input_size:
            from pocketzoo.zoo.models.input_size import resized  # it runs the backbone, with torch

            backbone = resized(backbone, ref.input_size, self.registry)
        features: FeatureSpecs = backbone.features
        if ref.cut:
            cuts = {cut.layer: cut.features for cut in backbone.cuts}
            if ref.cut not in cuts:
                raise UnknownNameError(f"{backbone.name} has no cut {ref.cut!r}", nearest(ref.cut, cuts))
            features = cuts[ref.cut]
        try:
            choice = feature_choice(head, backbone, features)
        except HeadMismatchError as error:
            fit = heads_that_fit(features, backbone, self.registry)
            raise HeadMismatchError(
                error.message, f"heads that fit: {', '.join(fit) or 'none is registered'}"
            ) from error
        return Parts(backbone, head, features, choice, open_config(backbone.input, backbone.files, self.registry))

    def structure(self, bundle: Bundle) -> Structure:
        """What the module of a bundle is built with.

        Raises:
            UnsupportedModelError: it came as an ONNX file.
            UnknownNameError: a backbone, head or compressor of it is of a plugin that is not installed.
        """
        ref = bundle.manifest.model
        if is_graph_only(bundle):
            raise no_module(bundle)
        try:
            parts = self.with_sources(bundle).parts(ref)
        except UnknownNameError as error:
            plugin = str(bundle.manifest.provenance.get("plugin") or "")
            if not plugin or plugin in (each.name for each in self.registry.manager.plugins):
                raise
            raise MissingPluginError(
                f"{bundle.manifest.name} needs the plugin {plugin}, which is not installed: {error.message}",
                f"install it; {error.hint}",
            ) from error
        return Structure(parts, self.compressors(bundle))

    def compressors(self, bundle: Bundle) -> Mapping[str, Compressor]:
        """What took the steps of a bundle, by name: its plans are read and replayed with them.

        Raises:
            MissingPluginError: one is of a plugin that is not installed, or of a newer version of it.
        """
        return {step.compressor: find_compressor(step, self.registry) for step in bundle.manifest.steps}

    def lacks_graphs(self, bundle: Bundle) -> bool:
        """Whether a bundle can be given graphs that it does not have yet: those by which its model generates text.

        Of a model whose plugin is not installed none can be made.
        """
        if bundle.manifest.driver != SINGLE or is_graph_only(bundle):
            return False
        try:
            return self.structure(bundle).generates_text
        except UnknownNameError:
            return False


def is_graph_only(bundle: Bundle) -> bool:
    """Whether a bundle came as an ONNX file: it has a graph and no module."""
    return bundle.manifest.model.backbone.startswith(GRAPH_ONLY)


def no_module(bundle: Bundle) -> UnsupportedModelError:
    """The error where the module of such a bundle is needed."""
    return UnsupportedModelError(
        f"{bundle.manifest.name} was imported as an ONNX graph and has no module",
        "only steps on the graph apply, such as int8; pruning and low rank need the torch module",
    )


def find_loader(repository: Repository, registry: Registry) -> LoaderSpec:
    """The first loader that reads a repository.

    Raises:
        UnsupportedModelError: none does; the message says why each does not.
    """
    reasons = []
    loaders: list[LoaderSpec] = [LOADER, *(entry.spec for entry in registry.entries("loader").values())]
    for loader in loaders:
        if not (reason := loader.refuses(repository)):
            return loader
        if loader is not LOADER:
            reasons.append(f"{loader.name}: {reason}")
    raise UnsupportedModelError(
        f"no plugin loads {repository.repo_id} ({'; '.join(reasons) or 'none is registered'})",
        registry.hint("see what can be loaded: pocketzoo search WORDS", "loader"),
    )


def hub_reference(text: str) -> HubRef:
    """A reference to the Hub.

    Raises:
        BadReferenceError: it is another reference, or none.
    """
    ref = parse(text)
    if not isinstance(ref, HubRef):
        raise BadReferenceError(f"{text!r} is not a reference to the Hub", "write hf://org/name[@revision]")
    return ref


def _offered(repository: Repository, loader: LoaderSpec) -> dict[tuple[str, str], Entry]:
    """A repository's backbone and head under their pinned names; a bundle is neither."""
    if loader is LOADER:
        return {}
    backbone = loader.backbone(repository)
    specs: dict[str, BackboneSpec | HeadSpec | None] = {"backbone": backbone, "head": loader.head(repository)}
    return {
        (kind, spec.name): Entry(kind, spec.name, spec, loader.name) for kind, spec in specs.items() if spec is not None
    }


def _say_what_comes(ref: HubRef, commit: str, files: list[Remote], progress: Progress) -> None:
    if not files:
        return
    name = str(replace(ref, revision="main", part="")) if ref.pinned else str(replace(ref, part=""))
    progress.say(f"{name} at {commit[:12]} needs {len(files)} files, {sum(f.size for f in files):,} bytes:")
    for file in sorted(files, key=lambda f: -f.size):
        progress.say(f"  {file.size:>13,} bytes  {file.path}")


def _json(path: Path, repo_id: str) -> dict[str, Any]:
    try:
        data = read_json(path)
    except MalformedError as error:
        raise UnsafeFileError(
            f"{CONFIG} of {repo_id} is not valid JSON: {error}", "tell the repository's author"
        ) from error
    return data if isinstance(data, dict) else {}


def is_path(reference: str) -> bool:
    """Whether what a user names is a place on this machine, there or not, and no registered name."""
    path = Path(reference.removeprefix("file:"))
    return path.exists() or len(path.parts) > 1 or reference.startswith("file:") or path.suffix == ".onnx"
