"""Repositories of the Hub: what is in them, and their files, verified, in the store. The only module that talks to it.

Bytes come through the Hub client's own HTTP session but not through its download functions: those check sizes only,
retry for minutes, and keep what a kill left behind. Here every byte is hashed on its way to the disk, a transfer goes
on where it broke off, and it ends when hardly anything came for ``PATIENCE`` seconds. Nor is a repository asked for
through it: it sends the user's token and the name of the program around along, and believes any answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_session, get_token, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from pocketzoo import __version__
from pocketzoo.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
    HubRenamedError,
    StorageError,
    UnsafeFileError,
)
from pocketzoo.progress import SILENT, Progress
from pocketzoo.zoo.reference import COMMIT, REPOSITORY, is_inside
from pocketzoo.zoo.specs import HubFile, Repository
from pocketzoo.zoo.store import SHA256, Incoming, Store, Stored
from pocketzoo.zoo.typed import from_plain, to_plain

PATIENCE = float(os.environ.get("POCKETZOO_PATIENCE") or 60)  # seconds without progress before a transfer ends
SILENCE = 10.0  # seconds that one read may take before the connection is made anew
PARALLEL = 4
STEP = 4096  # bytes; fewer than these in PATIENCE seconds are no progress
LARGE_STEP = 1 << 20  # bytes after which failures no longer count
LONGEST_ANSWER = 1 << 26  # bytes
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
        UnsafeFileError: a file of the repository would leave the folder it is unpacked to.
    """
    _check_name(repo_id)
    known = COMMIT.fullmatch(revision) and _stored_listing(repo_id, revision, store)
    if known:
        return known
    try:
        if is_offline():
            raise HubConnectionError(f"{repo_id}@{revision} is not stored, and this is offline", "go online once")
        what = f"{repo_id}@{revision[:12]}"
        answer = _ask(f"models/{repo_id}/revision/{quote(revision, safe='')}?blobs=true", repo_id, what, revision)
        with _reading(what):
            listing = _read_listing(repo_id, revision, answer)
    except HubError as error:
        commit = None if isinstance(error, HubIntegrityError) else store.last(repo_id, revision)
        known = _stored_listing(repo_id, commit, store) if commit else None
        if not known:
            raise
        progress.say(f"{error.message}; taking {revision} as it was last seen: {known.commit[:12]}")
        return known
    if COMMIT.fullmatch(revision) and listing.commit != revision:
        raise HubIntegrityError(f"{repo_id}@{revision[:12]} was answered with commit {listing.commit[:12]}", _DISTRUST)
    with contextlib.suppress(StorageError):  # a store that is read-only or full: the Hub is asked again next time
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
    for _ in range(3):
        fetched = _fetch_missing(listing, files, store, progress)
        known = store.known(listing.repo_id, listing.commit)
        if all(known.get(file.path) == file for file in fetched):
            return fetched
    raise StorageError(f"files vanish from {store.root}", "wait until prune has ended, then pull again")


def _fetch_missing(listing: Listing, files: Sequence[Remote], store: Store, progress: Progress) -> list[Stored]:
    known = store.known(listing.repo_id, listing.commit)
    fetched: dict[str, Stored] = {}
    for file in files:
        if (stored := _at_hand(listing, file, known.get(file.path), store)) is not None:
            store.record(listing.repo_id, listing.commit, stored)
            fetched[file.path] = stored
    missing = [file for file in files if file.path not in fetched]
    if missing and is_offline():
        raise HubConnectionError(
            f"{missing[0].path} of {listing.repo_id} is not stored, and this is offline", "go online once to pull it"
        )
    if not missing:
        return [fetched[file.path] for file in files]
    transfer = _Transfer(listing, store)
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = [pool.submit(transfer.run, file) for file in missing]
        try:
            megabytes = sum(file.size for file in missing) // 1_000_000
            for _ in progress.track(transfer.megabytes(futures), "fetching, MB", megabytes):
                pass
        finally:
            transfer.stopped.set()  # after an error or Ctrl-C the others end at their next chunk
            for future in futures:
                future.cancel()
    for file, future in zip(missing, futures, strict=True):
        fetched[file.path] = future.result()
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
    _check_name(file.repo_id)
    if (stored := _take_over(file.repo_id, file.revision, Remote(file.filename, -1, file.sha256, ""), store)) is None:
        listing = look_up(file.repo_id, file.revision, store, progress)
        remote = next((r for r in listing.files if r.path == file.filename), None)
        where = f"{file.repo_id}@{file.revision[:12]}/{file.filename}"
        if remote is None:
            raise HubMissingError(f"the Hub has no {where}", "tell the plugin's author that its pin is stale")
        if remote.sha256 not in ("", file.sha256):
            raise HubIntegrityError(f"{where} has other bytes than pinned (sha256)", _DISTRUST)
        (stored,) = fetch_files(listing, [replace(remote, sha256=file.sha256)], store, progress)
    else:
        store.record(file.repo_id, file.revision, stored)
    return store.blob(stored.sha256)


_DISTRUST = "do not use it; tell the repository's author"


def _check_name(repo_id: str) -> None:
    if not REPOSITORY.fullmatch(repo_id):
        raise HubMissingError(f"{repo_id!r} is no name of a repository", "write hf://org/name")


def _stored_listing(repo_id: str, commit: str, store: Store) -> Listing | None:
    data = store.listing(repo_id, commit)
    with contextlib.suppress(ValueError):  # written by another version
        return from_plain(Listing, data) if data else None
    return None


def _at_hand(listing: Listing, file: Remote, known: Stored | None, store: Store) -> Stored | None:
    """The file from the store, or taken over from the Hub client's own cache."""
    digest = file.sha256 or (known.sha256 if known else "")
    if digest and (path := store.find(digest)) is not None and path.stat().st_size == file.size:
        with contextlib.suppress(OSError):  # of another user, or a read-only store
            os.utime(path)  # prune takes what is old and has no record yet
        return Stored(file.path, digest, file.size)
    return _take_over(listing.repo_id, listing.commit, file, store)


def _take_over(repo_id: str, commit: str, file: Remote, store: Store) -> Stored | None:
    """Copy a file out of the Hub client's own cache, if it is there and right. A size of -1 is not known."""
    cached = try_to_load_from_cache(repo_id, file.path, revision=commit) if is_inside(file.path) else None
    if not isinstance(cached, str):
        return None
    try:
        source = Path(cached).open("rb")  # noqa: SIM115 - closed below; its errors are no errors of the store
    except OSError:
        return None
    with source:
        size = os.fstat(source.fileno()).st_size
        if file.size not in (size, -1):
            return None
        with store.writing(size) as incoming:
            while chunk := source.read(1 << 20):
                incoming.write(chunk)
            return Stored(file.path, incoming.keep(), size) if _matches(incoming, replace(file, size=size)) else None


def _matches(incoming: Incoming, file: Remote) -> bool:
    if incoming.received != file.size:
        return False
    return incoming.sha256.hexdigest() == file.sha256 if file.sha256 else incoming.git.hexdigest() == file.git


class _Patience:
    """Ends a transfer that stands still."""

    def __init__(self, what: str, stopped: threading.Event) -> None:
        self.what, self.stopped, self.failures, self.furthest = what, stopped, 0, 0
        self.restart()

    def restart(self) -> None:
        """Bytes come from the first one again, and count as progress again. Failures go on to count."""
        self.reached, self.moved = 0, time.monotonic()

    @property
    def left(self) -> float:
        return PATIENCE - (time.monotonic() - self.moved)

    @property
    def timeout(self) -> float:
        """Seconds that one read may take."""
        return min(SILENCE, max(self.left, 0.1))

    def progress(self, received: int) -> None:
        """Note how many bytes are there; give up if they hardly become more."""
        if received - self.reached >= STEP:
            self.reached, self.moved = received, time.monotonic()
        if received - self.furthest >= LARGE_STEP:
            self.furthest, self.failures = received, 0
        if self.left < 0:
            raise HubConnectionError(f"cannot fetch {self.what}: hardly anything comes", "try again later")

    def wait(self, error: Exception, seconds: float = 0.0) -> None:
        """Wait before the next try, or give up with ``error``'s reason."""
        pause = max(0.2 * 2**self.failures, seconds)
        self.failures += 1
        if pause >= self.left or self.stopped.wait(pause):
            if isinstance(error, HubError):
                raise error
            reason = " ".join(str(error).split()) or type(error).__name__
            raise HubConnectionError(
                f"cannot fetch {self.what}: {reason}", "check the connection, then try again"
            ) from error


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
        """Fetch one file and record it. Another process that fetches the same is waited for while it gets on."""
        repo_id, commit = self.listing.repo_id, self.listing.commit
        with self.store.turn(file.sha256 or file.git, PATIENCE, self.stopped.is_set) as touch:
            known = self.store.known(repo_id, commit).get(file.path)
            stored = _at_hand(self.listing, file, known, self.store) or self._fetch(file, touch)
            self.store.record(repo_id, commit, stored)
        return stored

    def _fetch(self, file: Remote, touch: Path) -> Stored:
        what = f"{file.path} of {self.listing.repo_id}"
        patience = _Patience(what, self.stopped)
        spoiled = 0
        with self.store.writing(file.size) as incoming:
            while True:
                ended = _trying(lambda: self._receive(file, incoming, patience, touch), patience)
                if _matches(incoming, file):
                    return Stored(file.path, incoming.keep(), file.size)
                if incoming.received == file.size:
                    spoiled += 1
                    if spoiled == 2:
                        raise HubIntegrityError(f"{what} has other bytes than its digest says", _DISTRUST)
                    _restart(incoming, patience)
                elif ended:
                    patience.wait(HubConnectionError(f"{what} ends too early", "try again later"))

    def _receive(self, file: Remote, incoming: Incoming, patience: _Patience, touch: Path) -> bool:
        """Read what is still missing of a file; true when the answer is at its end, whether or not all is there."""
        url = f"{constants.ENDPOINT}/{self.listing.repo_id}/resolve/{self.listing.commit}/{quote(file.path)}"
        range_ = {"Range": f"bytes={incoming.received}-"} if incoming.received else {}
        with _get(url, self.listing.repo_id, patience.timeout, range_) as response:
            if response.status_code == 416:  # what came before is not what this host has
                _restart(incoming, patience)
                return True
            where = f"{self.listing.repo_id}@{self.listing.commit[:12]}/{file.path}"
            _refuse(response, self.listing.repo_id, self.listing.commit, where)
            _check_headers(response, self.listing.commit, file)
            if incoming.received and response.status_code != 206:
                _restart(incoming, patience)
            for chunk in response.iter_raw():
                if self.stopped.is_set():
                    raise HubConnectionError(f"{file.path} was stopped", "pull again")
                if incoming.received + len(chunk) > file.size:
                    raise HubIntegrityError(f"{patience.what} is longer than the Hub states", _DISTRUST)
                incoming.write(chunk)
                patience.progress(incoming.received)
                with self.lock:
                    self.received += len(chunk)
                with contextlib.suppress(OSError):
                    os.utime(touch)
        return True


def _restart(incoming: Incoming, patience: _Patience) -> None:
    incoming.restart()
    patience.restart()


_NEED_TOKEN: set[str] = set()  # repositories that are gated or private; all others never see the token


def _token() -> str | None:
    """The user's token, if it may be sent: never in the clear over a network."""
    url = urlsplit(constants.ENDPOINT)
    return get_token() if url.scheme == "https" or url.hostname in ("127.0.0.1", "localhost", "::1") else None


@contextlib.contextmanager
def _get(url: str, repo_id: str, timeout: float, more: dict[str, str]) -> Iterator[httpx2.Response]:
    """Ask. Bytes are to be read raw: an encoding could unpack a few of them to gigabytes before anyone counts."""
    headers = {"User-Agent": f"pocketzoo/{__version__}", "Accept-Encoding": "identity", **more}
    if repo_id in _NEED_TOKEN and (token := _token()):
        headers["Authorization"] = f"Bearer {token}"
    with get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
        yield response


def _of_hub(response: httpx2.Response) -> bool:
    """Whether the Hub itself answers, and not a host that it sends its files from."""
    hub = httpx2.URL(constants.ENDPOINT)
    return (response.url.scheme, response.url.host, response.url.port) == (hub.scheme, hub.host, hub.port)


def _check_headers(response: httpx2.Response, commit: str, file: Remote) -> None:
    """The Hub's answer names the commit and the digest; both must be the ones expected."""
    answers = [r for r in (*response.history, response) if _of_hub(r)]
    first = next((r for r in answers if "X-Repo-Commit" in r.headers), answers[0])
    given = first.headers.get("X-Repo-Commit", "")
    if given != commit:
        raise HubIntegrityError(f"commit {commit[:12]} was answered with {given[:40] or 'no commit'!r}", _DISTRUST)
    tag = first.headers.get("X-Linked-ETag") or first.headers.get("ETag") or ""
    digest = tag.removeprefix("W/").strip('"')
    if not digest or digest not in (file.sha256, file.git):
        raise HubIntegrityError(f"{file.path} came with {tag[:80]!r}, which is not its digest", _DISTRUST)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise HubIntegrityError(f"{file.path} came packed, though that was not asked for", _DISTRUST)


class _AgainError(Exception):
    """An answer that may be better next time."""

    def __init__(self, error: HubError, seconds: float = 0.0) -> None:
        super().__init__(str(error))
        self.error, self.seconds = error, seconds


def _trying(call: Callable[[], T], patience: _Patience) -> T | None:
    """Call once. What may pass is waited for, and None returned; what will not is raised."""
    try:
        return call()
    except _AgainError as again:
        patience.wait(again.error, again.seconds)
    except HubError:
        raise
    except (httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # the disk's, not the network's
        patience.wait(error)
    return None


def _refuse(response: httpx2.Response, repo_id: str, revision: str, where: str) -> None:
    """Raise what a refusal means; return if it is none."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if status < 400:
        return
    without = _of_hub(response) and "Authorization" not in response.request.headers
    if repo_id and code in ("GatedRepo", "RepoNotFound") and without and _token():
        _NEED_TOKEN.add(repo_id)
        raise _AgainError(HubAccessError(f"the Hub refuses {where} ({status})", "check HF_TOKEN"))
    if code == "GatedRepo":
        raise HubAccessError(f"{repo_id} is gated", "ask for access on its page, then set HF_TOKEN")
    if code == "RevisionNotFound":
        raise HubMissingError(f"{repo_id} has no revision {revision!r}", "see its branches and tags on its page")
    if code == "EntryNotFound":
        raise HubMissingError(f"the Hub has no {where}", "see the repository's files on its page")
    if status == 429:
        after = response.headers.get("Retry-After", "")
        seconds = float(after) if re.fullmatch(r"[0-9]{1,9}", after) else 0.0
        hint = f"try again in {after} seconds" if seconds else "try again later"
        raise _AgainError(HubRateLimitError(f"the Hub takes no more requests now ({where})", hint), seconds)
    if status >= 500 or not _of_hub(response):
        host = "the Hub" if _of_hub(response) else response.url.host
        raise _AgainError(HubConnectionError(f"{host} answers {status} for {where}", "try again later"))
    if repo_id and (code == "RepoNotFound" or status == 404):
        raise HubMissingError(f"the Hub has no {repo_id}, or it is private", "check the name; if private, set HF_TOKEN")
    if status in (401, 403):
        raise HubAccessError(
            f"the Hub refuses {where} ({status})", "check HF_TOKEN: see huggingface.co/settings/tokens"
        )
    raise HubConnectionError(f"the Hub answers {status} for {where}", "try again later")


def _ask(question: str, repo_id: str, what: str, revision: str = "") -> bytes:
    """What the Hub's API answers."""
    patience = _Patience(what, threading.Event())
    while True:
        answer = _trying(lambda: _ask_once(question, repo_id, revision, patience), patience)
        if answer is not None:
            return answer


def _ask_once(question: str, repo_id: str, revision: str, patience: _Patience) -> bytes:
    data = bytearray()
    with _get(f"{constants.ENDPOINT}/api/{question}", repo_id, patience.timeout, {}) as response:
        _refuse(response, repo_id, revision, patience.what)
        kind = response.headers.get("Content-Type", "")
        if response.status_code != 200 or not _of_hub(response) or not kind.startswith("application/json"):
            what = f"{response.url.host} answers for {patience.what} with {kind[:40]!r}"
            raise HubConnectionError(what, "check the connection: a login page, or HF_ENDPOINT is no Hub")
        for chunk in response.iter_raw():
            data += chunk
            patience.progress(len(data))
            if len(data) > LONGEST_ANSWER:
                raise HubIntegrityError(f"the answer for {patience.what} does not end", _DISTRUST)
    return bytes(data)


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Reading an answer that may be anything."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise HubIntegrityError(f"the answer for {what} is not what the Hub answers", _DISTRUST) from error


def _read_listing(repo_id: str, revision: str, answer: bytes) -> Listing:
    info = json.loads(answer)
    name, commit = info["id"], info["sha"]
    if not REPOSITORY.fullmatch(name) or not COMMIT.fullmatch(commit):
        raise HubIntegrityError(f"{repo_id}@{revision} was answered with commit {str(commit)[:40]!r}", _DISTRUST)
    if name.lower() != repo_id.lower():
        raise HubRenamedError(f"{repo_id} is called {name} now", f"write hf://{name}")
    files = {file.path: file for file in (_read_remote(repo_id, sibling) for sibling in info["siblings"])}
    return Listing(
        repo_id=repo_id,
        commit=commit,
        files=tuple(sorted(files.values(), key=lambda f: f.path)),
        library=_plain(info.get("library_name")),
        task=_plain(info.get("pipeline_tag")),
        license=_plain((info.get("cardData") or {}).get("license")),
    )


def _read_remote(repo_id: str, sibling: dict[str, Any]) -> Remote:
    path, lfs = sibling["rfilename"], sibling.get("lfs")
    if not is_inside(path):
        raise UnsafeFileError(f"{repo_id} has a file called {path!r}", _DISTRUST)
    git = sibling.get("blobId") or ""
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling.get("size"), "")
    if type(size) is not int or size < 0 or not COMMIT.fullmatch(git) or (lfs and not SHA256.fullmatch(digest)):
        raise HubIntegrityError(f"the Hub states no digest of {path} of {repo_id}", _DISTRUST)
    return Remote(path, size, digest, git)


def find_models(
    words: str, *, task: str | None, library: str | None, limit: int
) -> list[tuple[Repository, int | None, int]]:
    """Models whose name holds ``words``, the most downloaded first: facts, number of parameters, downloads.

    Raises:
        HubError: the Hub does not answer, or this is offline.
    """
    if is_offline():
        raise HubConnectionError("a search needs the Hub, and this is offline", "leave out --offline")
    fields = ["cardData", "config", "downloads", "library_name", "pipeline_tag", "safetensors", "siblings"]
    wanted = {"search": words, "filter": library, "pipeline_tag": task, "sort": "downloads", "limit": limit}
    query = urlencode({k: v for k, v in wanted.items() if v is not None} | {"expand": fields}, doseq=True)
    answer = _ask(f"models?{query}", "", f"models called {words!r}")
    with _reading(f"models called {words!r}"):
        return [_read_found(info) for info in json.loads(answer)[:limit] if REPOSITORY.fullmatch(info["id"])]


def _read_found(info: dict[str, Any]) -> tuple[Repository, int | None, int]:
    repository = Repository(
        repo_id=info["id"],
        commit=str(info.get("sha") or ""),
        sizes={str(sibling["rfilename"]): int(sibling.get("size") or 0) for sibling in info.get("siblings") or ()},
        library=_plain(info.get("library_name")),
        task=_plain(info.get("pipeline_tag")),
        license=_plain((info.get("cardData") or {}).get("license")),
        config=dict(info.get("config") or {}),
    )
    parameters = (info.get("safetensors") or {}).get("total")
    return repository, None if parameters is None else int(parameters), int(info.get("downloads") or 0)


def _plain(value: Any) -> str:
    """What an author wrote, as it can be printed."""
    return "".join(c for c in str(value or "") if c.isprintable())


def upload(repo_id: str, folder: Path, message: str, *, private: bool) -> str:
    """Commit the files of a folder to a repository, which is made if it is not there; returns the commit.

    Raises:
        HubAccessError: there is no token that may be sent, or the Hub does not accept it.
        HubError: one of its family.
    """
    _check_name(repo_id)
    if is_offline():
        raise HubConnectionError("a push needs the Hub, and this is offline", "leave out --offline")
    if not (token := _token()):
        raise HubAccessError("a push needs a token", "make one at huggingface.co/settings/tokens, then set HF_TOKEN")
    try:
        api = HfApi(endpoint=constants.ENDPOINT, token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).oid)
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[-1]
        raise HubAccessError(f"the Hub refuses {repo_id}: {reason}", "check that HF_TOKEN may write there") from error
    except (httpx2.TransportError, RuntimeError) as error:  # hf_xet raises a bare RuntimeError
        raise HubConnectionError(
            f"cannot upload to {repo_id}: {error}", "check the connection, then push again"
        ) from error
