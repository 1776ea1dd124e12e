"""Repositories of the Hub: what is in them, and their files, verified, in the store. The only module that talks to it.

Bytes come through the Hub client's own HTTP session but not through its download functions: those check sizes only,
retry for minutes, and keep what a kill left behind. Here every byte is hashed on its way to the disk, a transfer goes
on where it broke off, and it ends when nothing came for ``PATIENCE`` seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants, get_session, get_token, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from pocketzoo import __version__
from pocketzoo.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
    HubRenamedError,
    UnsafeFileError,
)
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.files import sha256
from pocketzoo.zoo.reference import COMMIT, is_inside
from pocketzoo.zoo.specs import HubFile, Repository
from pocketzoo.zoo.store import Incoming, Store, Stored
from pocketzoo.zoo.typed import from_plain, to_plain

PATIENCE = float(os.environ.get("POCKETZOO_PATIENCE") or 60)  # seconds without progress before a transfer ends
SILENCE = 10.0  # seconds that one read may take before the connection is made anew
PARALLEL = 4
CHUNK = 1 << 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the Hub states it."""

    path: str
    size: int  # bytes
    sha256: str  # of large files; "" for those that git keeps itself
    git: str  # git's own digest of a small file


@dataclass(frozen=True, slots=True)
class Listing:
    """What the Hub states of a commit."""

    repo_id: str
    commit: str
    files: tuple[Remote, ...]
    library: str = ""
    task: str = ""
    license: str = ""


def is_offline() -> bool:
    """Whether no socket may be opened: HF_HUB_OFFLINE, or ``--offline``."""
    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def look_up(repo_id: str, revision: str, store: Store, progress: Progress = SILENT) -> Listing:
    """Resolve a revision and list its files. A commit that was listed before makes no request.

    When the Hub does not answer, or no longer gives this repository, the commit that a branch or tag was last seen at
    is taken if it was fetched before; ``progress`` says so.

    Raises:
        HubError: one of its family.
    """
    known = COMMIT.fullmatch(revision) and _stored_listing(repo_id, revision, store)
    if known:
        return known
    try:
        if is_offline():
            raise HubConnectionError(f"{repo_id}@{revision} is not stored, and this is offline", "go online once")
        listing = _ask(repo_id, revision)
    except HubError as error:
        commit = None if isinstance(error, HubIntegrityError) else store.last(repo_id, revision)
        known = _stored_listing(repo_id, commit, store) if commit else None
        if not known:
            raise
        progress.say(f"{error.message}; taking {revision} as it was last seen: {known.commit[:12]}")
        return known
    if COMMIT.fullmatch(revision) and listing.commit != revision:
        raise HubIntegrityError(f"{repo_id}@{revision[:12]} was answered with commit {listing.commit[:12]}", _DISTRUST)
    store.note_listing(repo_id, listing.commit, to_plain(listing))
    if listing.commit != revision:
        store.remember(repo_id, revision, listing.commit)
    return listing


def fetch_files(listing: Listing, files: Sequence[Remote], store: Store, progress: Progress = SILENT) -> list[Stored]:
    """Bring files of a commit into the store, several at once, and record them; what is there is not fetched again.

    Raises:
        HubError: one of its family; what arrived whole before stays.
        StorageError: the disk refuses.
    """
    fetched: dict[str, Stored] = {}
    for file in files:
        if (stored := _at_hand(listing, file, store)) is not None:
            fetched[file.path] = stored
    missing = [file for file in files if file.path not in fetched]
    if missing and is_offline():
        raise HubConnectionError(
            f"{missing[0].path} of {listing.repo_id} is not stored, and this is offline", "go online once to pull it"
        )
    transfer = _Transfer(listing, store)
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(transfer.run, file) for file in missing]
        try:
            megabytes = sum(file.size for file in missing) // 1_000_000
            for _ in progress.track(transfer.megabytes(futures), "fetching, MB", megabytes):
                pass
        finally:
            transfer.stopped.set()  # after an error or Ctrl-C the others end at their next chunk
    for file, future in zip(missing, futures, strict=True):
        fetched[file.path] = future.result()
    for file in files:
        store.record(listing.repo_id, listing.commit, fetched[file.path])
    return [fetched[file.path] for file in files]


def fetch(file: HubFile, progress: Progress = SILENT) -> Path:
    """The local copy of a file that a plugin pins. One that is stored makes no request.

    Raises:
        HubError: one of its family; ``HubIntegrityError`` when its bytes are not the pinned ones.
    """
    store = Store()
    if not COMMIT.fullmatch(file.revision):
        raise HubError(f"{file.repo_id} is pinned to {file.revision!r}", "pin a commit of 40 hex digits, no branch")
    if (path := store.find(file.sha256)) is not None:
        return path
    listing = look_up(file.repo_id, file.revision, store, progress)
    remote = next((r for r in listing.files if r.path == file.filename), None)
    where = f"{file.repo_id}@{file.revision[:12]}/{file.filename}"
    if remote is None:
        raise HubMissingError(f"the Hub has no {where}", "tell the plugin's author that its pin is stale")
    if remote.sha256 not in ("", file.sha256):
        raise HubIntegrityError(f"{where} has other bytes than pinned (sha256)", _DISTRUST)
    (stored,) = fetch_files(listing, [remote], store, progress)
    if stored.sha256 != file.sha256:
        raise HubIntegrityError(f"{where} has other bytes than pinned (sha256)", _DISTRUST)
    return store.blob(stored.sha256)


_DISTRUST = "do not use it; tell the repository's author"


def _stored_listing(repo_id: str, commit: str, store: Store) -> Listing | None:
    data = store.listing(repo_id, commit)
    with contextlib.suppress(ValueError):  # written by another version
        return from_plain(Listing, data) if data else None
    return None


def _at_hand(listing: Listing, file: Remote, store: Store) -> Stored | None:
    """The file from the store, or taken over from the Hub client's own cache."""
    known = store.known(listing.repo_id, listing.commit).get(file.path)
    digest = file.sha256 or (known.sha256 if known else "")
    if digest and (path := store.find(digest)) is not None:
        with contextlib.suppress(OSError):  # of another user, or a read-only store
            os.utime(path)  # prune takes what is old and has no record yet
        return Stored(file.path, digest, file.size)
    cached = try_to_load_from_cache(listing.repo_id, file.path, revision=listing.commit)
    if not isinstance(cached, str) or os.path.getsize(cached) != file.size:
        return None
    if file.sha256 and sha256(Path(cached)) != file.sha256:
        return None
    with store.writing(file.size) as incoming, Path(cached).open("rb") as source:
        while chunk := source.read(1 << 20):
            incoming.write(chunk)
        if not _matches(incoming, file):
            return None
        return Stored(file.path, incoming.keep(), file.size)


def _matches(incoming: Incoming, file: Remote) -> bool:
    if incoming.received != file.size:
        return False
    return incoming.sha256.hexdigest() == file.sha256 if file.sha256 else incoming.git.hexdigest() == file.git


class _Patience:
    """Ends a transfer that stands still."""

    def __init__(self, what: str) -> None:
        self.what, self.failures = what, 0
        self.moved()

    def moved(self) -> None:
        self.last = time.monotonic()

    @property
    def left(self) -> float:
        return PATIENCE - (time.monotonic() - self.last)

    def wait(self, error: Exception, seconds: float | None = None) -> None:
        """Wait before the next try, or give up with ``error``'s reason."""
        pause = 0.2 * 2**self.failures if seconds is None else seconds
        self.failures += 1
        if pause >= self.left:
            if isinstance(error, HubError):
                raise error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise HubConnectionError(
                f"cannot fetch {self.what}: {reason}", "check the connection, then try again"
            ) from error
        time.sleep(pause)


class _Transfer:
    """Files of one commit on their way."""

    def __init__(self, listing: Listing, store: Store) -> None:
        self.listing, self.store = listing, store
        self.stopped = threading.Event()
        self.received = 0
        self.lock = threading.Lock()

    def megabytes(self, futures: list[Future[Stored]]) -> Iterator[None]:
        """Yield once for every megabyte that came, until all is there or something failed."""
        shown = 0
        while True:
            done = wait(futures, timeout=0.1, return_when=FIRST_EXCEPTION)
            while shown < self.received // 1_000_000:
                shown += 1
                yield
            for future in done.done:
                future.result()
            if not done.not_done:
                return

    def run(self, file: Remote) -> Stored:
        """Fetch one file. Another process that fetches the same is waited for, but not for ever."""
        place = self.store.root / "locks" / (file.sha256 or file.git)
        lock = FileLock(place)
        with contextlib.suppress(Timeout, OSError):  # it saves a second download; safe without
            place.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=PATIENCE)
        try:
            if file.sha256 and self.store.find(file.sha256) is not None:
                return Stored(file.path, file.sha256, file.size)
            return self._fetch(file)
        finally:
            lock.release()

    def _fetch(self, file: Remote) -> Stored:
        what = f"{file.path} of {self.listing.repo_id}"
        patience = _Patience(what)
        spoiled = 0
        with self.store.writing(file.size) as incoming:
            while True:
                _trying(lambda: self._receive(file, incoming, patience), patience)
                if _matches(incoming, file):
                    return Stored(file.path, incoming.keep(), file.size)
                if incoming.received == file.size:
                    spoiled += 1
                    incoming.restart()
                    if spoiled == 2:
                        raise HubIntegrityError(f"{what} has other bytes than the Hub states (sha256)", _DISTRUST)
                else:
                    patience.wait(HubConnectionError(f"{what} ends too early", "try again later"))

    def _receive(self, file: Remote, incoming: Incoming, patience: _Patience) -> None:
        """Read what is still missing of a file."""
        url = hf_hub_url(self.listing.repo_id, file.path, revision=self.listing.commit)
        headers = {"User-Agent": f"pocketzoo/{__version__}", "Accept-Encoding": "identity"}
        if incoming.received:
            headers["Range"] = f"bytes={incoming.received}-"
        if self.listing.repo_id in _NEED_TOKEN and (token := _token()):
            headers["Authorization"] = f"Bearer {token}"
        with get_session().stream("GET", url, headers=headers, timeout=SILENCE, follow_redirects=True) as response:
            if response.status_code == 416:  # what came before is not what this host has
                incoming.restart()
                return
            try:
                _refuse(response, self.listing.repo_id, self.listing.commit, file.path)
            except HubAccessError as error:
                if not _token() or self.listing.repo_id in _NEED_TOKEN:
                    raise
                _NEED_TOKEN.add(self.listing.repo_id)
                raise _AgainError(error, 0.0) from error
            _check_headers(response, self.listing.commit, file)
            if incoming.received and response.status_code != 206:
                incoming.restart()
            # Raw bytes: an encoding could unpack a few bytes to gigabytes before the size is looked at.
            for chunk in response.iter_raw(CHUNK):
                if self.stopped.is_set():
                    raise HubConnectionError(f"{file.path} was stopped", "pull again")
                incoming.write(chunk)
                patience.moved()
                with self.lock:
                    self.received += len(chunk)


_NEED_TOKEN: set[str] = set()  # repositories that are gated or private; all others never see the token


def _token() -> str | None:
    """The user's token, if it may be sent: never in the clear over a network."""
    url = urlsplit(constants.ENDPOINT)
    return get_token() if url.scheme == "https" or url.hostname in ("127.0.0.1", "localhost", "::1") else None


def _check_headers(response: httpx2.Response, commit: str, file: Remote) -> None:
    """The first answer names the commit and the digest; both must be the ones expected."""
    first = response.history[0] if response.history else response
    given = first.headers.get("X-Repo-Commit", "")
    if given != commit:
        raise HubIntegrityError(f"commit {commit[:12]} was answered with {given[:40] or 'no commit'!r}", _DISTRUST)
    tag = first.headers.get("X-Linked-ETag") or first.headers.get("ETag") or ""
    digest = tag.removeprefix("W/").strip('"')
    if digest not in (file.sha256, file.git) or not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", digest):
        raise HubIntegrityError(f"{file.path} came with {tag[:80]!r}, which is not its digest", _DISTRUST)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise HubIntegrityError(f"{file.path} came packed, though that was not asked for", _DISTRUST)


class _AgainError(Exception):
    """An answer that may be better next time."""

    def __init__(self, error: HubError, seconds: float | None) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


def _trying(call: Callable[[], T], patience: _Patience) -> T | None:
    """Call once. What may pass is waited for, and None returned; what will not is raised."""
    try:
        return call()
    except _AgainError as again:
        patience.wait(again.error, again.seconds)
    except (OfflineModeIsEnabled, HubError):
        raise
    except (httpx2.TransportError, httpx2.StreamError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # the disk's, not the network's
        patience.wait(error)
    return None


def _refuse(response: httpx2.Response, repo_id: str, revision: str, path: str = "") -> None:
    """Raise what a refusal means; return if it is none."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if status < 400 or status == 416:
        return
    where = f"{repo_id}@{revision[:12]}{f'/{path}' if path else ''}"
    if code == "GatedRepo":
        raise HubAccessError(f"{repo_id} is gated", "ask for access on its page, then set HF_TOKEN")
    if code == "RevisionNotFound":
        raise HubMissingError(f"{repo_id} has no revision {revision!r}", "see its branches and tags on its page")
    if code == "EntryNotFound":
        raise HubMissingError(f"the Hub has no {where}", "see the repository's files on its page")
    if code == "RepoNotFound" or status == 404:
        raise HubMissingError(f"the Hub has no {repo_id}, or it is private", "check the name; if private, set HF_TOKEN")
    if status == 429:
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdigit() else None
        hint = f"try again in {after} seconds" if seconds else "try again later"
        raise _AgainError(HubRateLimitError(f"the Hub takes no more requests now ({where})", hint), seconds)
    if status >= 500:
        raise _AgainError(HubConnectionError(f"the Hub answers {status} for {where}", "try again later"), None)
    if status in (401, 403):
        raise HubAccessError(
            f"the Hub refuses {where} ({status})", "check HF_TOKEN: see huggingface.co/settings/tokens"
        )
    raise HubConnectionError(f"the Hub answers {status} for {where}", "try again later")


def _ask(repo_id: str, revision: str) -> Listing:
    patience = _Patience(f"{repo_id}@{revision[:12]}")
    while True:
        info = _trying(lambda: _model_info(repo_id, revision, patience), patience)
        if info is not None:
            break
    if info.id != repo_id and info.id.lower() != repo_id.lower():
        raise HubRenamedError(f"{repo_id} is called {info.id} now", f"write hf://{info.id}")
    if not COMMIT.fullmatch(info.sha or ""):
        raise HubIntegrityError(f"{repo_id}@{revision} was answered with commit {info.sha!r}", _DISTRUST)
    files = []
    for sibling in info.siblings or ():
        if not is_inside(sibling.rfilename):
            raise UnsafeFileError(f"{repo_id} has a file called {sibling.rfilename!r}", _DISTRUST)
        large = sibling.lfs.sha256 if sibling.lfs else ""
        size = sibling.lfs.size if sibling.lfs else sibling.size
        digests = re.fullmatch(r"[0-9a-f]{40}", sibling.blob_id or "") and re.fullmatch(r"([0-9a-f]{64})?", large)
        if size is None or size < 0 or not digests:
            raise HubIntegrityError(f"the Hub states no digest of {sibling.rfilename} of {repo_id}", _DISTRUST)
        files.append(Remote(sibling.rfilename, size, large, sibling.blob_id or ""))
    card: Any = info.card_data
    return Listing(
        repo_id=repo_id,
        commit=info.sha,
        files=tuple(sorted(files, key=lambda f: f.path)),
        library=info.library_name or "",
        task=info.pipeline_tag or "",
        license=str((card.get("license") if card else "") or ""),
    )


def _model_info(repo_id: str, revision: str, patience: _Patience) -> Any:
    api = HfApi()
    token: str | bool = (_token() or False) if repo_id in _NEED_TOKEN else False
    try:
        return api.model_info(repo_id, revision=revision, files_metadata=True, timeout=SILENCE, token=token)
    except HFValidationError as error:
        raise HubMissingError(f"{repo_id!r} is no repository: {error}", "write hf://org/name") from error
    except HfHubHTTPError as error:
        code = error.response.headers.get("X-Error-Code", "")
        if code in ("RepoNotFound", "GatedRepo") and token is False and _token():
            _NEED_TOKEN.add(repo_id)
            return _model_info(repo_id, revision, patience)
        _refuse(error.response, repo_id, revision)
        raise


def find_models(
    words: str, *, task: str | None, library: str | None, limit: int
) -> Iterator[tuple[Repository, int | None, int]]:
    """Models whose name holds ``words``, the most downloaded first: facts, number of parameters, downloads.

    Raises:
        HubError: the Hub does not answer, or this is offline.
    """
    if is_offline():
        raise HubConnectionError("a search needs the Hub, and this is offline", "leave out --offline")
    patience = _Patience(f"models called {words!r}")
    fields: Any = ["cardData", "config", "downloads", "library_name", "pipeline_tag", "safetensors", "siblings"]

    def ask() -> list[Any]:
        try:
            found = HfApi().list_models(
                search=words,
                filter=library,
                pipeline_tag=task,
                sort="downloads",
                limit=limit,
                expand=fields,
                token=False,
            )
            return list(found)
        except HfHubHTTPError as error:
            _refuse(error.response, "models", "search")
            raise

    while (models := _trying(ask, patience)) is None:
        pass
    for info in models:
        card = info.card_data
        weights = info.safetensors
        yield (
            Repository(
                repo_id=info.id,
                commit=info.sha or "",
                sizes={sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()},
                library=info.library_name or "",
                task=info.pipeline_tag or "",
                license=str((card.get("license") if card else "") or ""),
                config=info.config or {},
            ),
            weights.total if weights else None,
            info.downloads or 0,
        )
