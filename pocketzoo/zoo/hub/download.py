"""Download files of the Hub into the store.

Every byte is hashed on its way to the disk, a transfer resumes where it broke off, and it ends when hardly anything
came for ``PATIENCE`` seconds. The Hub client's own downloads check sizes only and keep what a kill left behind.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import httpx2
from huggingface_hub import constants, try_to_load_from_cache

from pocketzoo.core.errors import HubConnectionError, HubError, HubIntegrityError, HubMissingError, StorageError
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.zoo.catalog.specs import HubFile
from pocketzoo.zoo.hub import http as hub_http
from pocketzoo.zoo.hub.http import DISTRUST, Patience, get, is_offline, of_hub, refuse, trying
from pocketzoo.zoo.hub.reference import COMMIT, is_inside
from pocketzoo.zoo.hub.repositories import Listing, Remote, check_name, look_up
from pocketzoo.zoo.hub.store import Incoming, Store
from pocketzoo.zoo.hub.store_layout import git_digest
from pocketzoo.zoo.hub.stored_files import Stored

PARALLEL = 4


def fetch_files(
    listing: Listing, files: Sequence[Remote], store: Store, progress: Progress = SILENT, *, offline: bool = False
) -> list[Stored]:
    """Bring files of a commit into the store, several at once, and record them; what is there is not fetched again.

    A store that cannot be written, but has all the bytes, serves them without a record.

    Raises:
        HubError: one of its family; what arrived whole before stays.
        StorageError: the disk refuses.
    """
    begun, longest = time.monotonic(), 0.01
    while True:
        fetched, unrecorded = _fetch_missing(listing, files, store, progress, offline)
        known = store.known(listing.repo_id, listing.commit)
        known |= {file.path: file for file in unrecorded if store.blob(file.sha256).is_file()}
        if all(known.get(file.path) == file for file in fetched):
            return fetched
        if time.monotonic() - begun > hub_http.PATIENCE:
            break
        time.sleep(random.uniform(0, longest))  # of any length: else the two could go on in step
        longest = min(2 * longest, 1.0)
    raise StorageError(f"files disappear from {store.root}", "wait until prune has finished, then pull again")


def _fetch_missing(
    listing: Listing, files: Sequence[Remote], store: Store, progress: Progress, offline: bool
) -> tuple[list[Stored], list[Stored]]:
    """All files, and those of them that were at hand but could not be recorded."""
    known = store.known(listing.repo_id, listing.commit)
    fetched: dict[str, Stored] = {}
    unrecorded = []
    for file in files:
        if (stored := _at_hand(listing, file, known.get(file.path), store)) is not None:
            try:
                store.record(listing.repo_id, listing.commit, stored)
            except StorageError:  # read-only, or full: the bytes are there, and that is what was asked for
                unrecorded.append(stored)
            fetched[file.path] = stored
    missing = [file for file in files if file.path not in fetched]
    if missing and (offline or is_offline()):
        raise HubConnectionError(
            f"{missing[0].path} of {listing.repo_id} is not stored, and this is offline", "pull it once while online"
        )
    if not missing:
        return [fetched[file.path] for file in files], unrecorded
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
    return [fetched[file.path] for file in files], unrecorded


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
    check_name(file.repo_id)
    if (stored := _take_over(file.repo_id, file.revision, Remote(file.filename, -1, file.sha256, ""), store)) is None:
        listing = look_up(file.repo_id, file.revision, store, progress)
        remote = next((r for r in listing.files if r.path == file.filename), None)
        where = f"{file.repo_id}@{file.revision[:12]}/{file.filename}"
        if remote is None:
            raise HubMissingError(f"the Hub has no {where}", "report the stale pin to the plugin's author")
        if remote.sha256 not in ("", file.sha256):
            raise HubIntegrityError(f"{where} differs from its pinned sha256", DISTRUST)
        (stored,) = fetch_files(listing, [replace(remote, sha256=file.sha256)], store, progress)
    else:
        store.record(file.repo_id, file.revision, stored)
    return store.blob(stored.sha256)


def _at_hand(listing: Listing, file: Remote, known: Stored | None, store: Store) -> Stored | None:
    """The file from the store, or taken over from the Hub client's own cache."""
    digest = file.sha256 or (known.sha256 if known else _by_git(listing.repo_id, file, store))
    if digest and (path := store.find(digest)) is not None and path.stat().st_size == file.size:
        with contextlib.suppress(OSError):  # of another user, or a read-only store
            os.utime(path)  # prune takes what is old and has no record yet
        return Stored(file.path, digest, file.size)
    return _take_over(listing.repo_id, listing.commit, file, store)


def _by_git(repo_id: str, file: Remote, store: Store) -> str:
    """The sha256 of a small file, of which the Hub states git's digest alone, if another commit brought it; else ""."""
    listings = (store.known(repo_id, commit) for commit in store.commits(repo_id))
    for digest in {f.sha256 for files in listings for f in files.values() if f.size == file.size}:
        if (path := store.find(digest)) is not None and git_digest(path.read_bytes()) == file.git:
            return digest
    return ""


def _take_over(repo_id: str, commit: str, file: Remote, store: Store) -> Stored | None:
    """Copy a file out of the Hub client's own cache, if it is there and right. A size of -1 is not known.

    That cache is made of links; one that leads out of it, or to no file (a pipe would block), is left alone.
    """
    cached = try_to_load_from_cache(repo_id, file.path, revision=commit) if is_inside(file.path) else None
    if not isinstance(cached, str):
        return None
    try:
        real = Path(cached).resolve(strict=True)
        if not real.is_relative_to(Path(constants.HF_HUB_CACHE).resolve()) or not real.is_file():
            return None
        source = real.open("rb")
    except (OSError, RuntimeError):  # Python before 3.13 raises RuntimeError for links in a circle
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
        with self.store.turn(file.sha256 or file.git, hub_http.PATIENCE, self.stopped.is_set) as touch:
            known = self.store.known(repo_id, commit).get(file.path)
            stored = _at_hand(self.listing, file, known, self.store) or self._fetch(file, touch)
            self.store.record(repo_id, commit, stored)
        return stored

    def _fetch(self, file: Remote, touch: Path) -> Stored:
        what = f"{file.path} of {self.listing.repo_id}"
        patience = Patience(what, self.stopped)
        spoiled = 0
        with self.store.writing(file.size) as incoming:
            while True:
                ended = trying(lambda: self._receive(file, incoming, patience, touch), patience)
                if _matches(incoming, file):
                    return Stored(file.path, incoming.keep(), file.size)
                if incoming.received == file.size:
                    spoiled += 1
                    if spoiled == 2:
                        raise HubIntegrityError(f"{what} does not match its digest", DISTRUST)
                    _restart(incoming, patience)
                elif ended:
                    patience.wait(HubConnectionError(f"{what} is truncated", "try again later"))

    def _receive(self, file: Remote, incoming: Incoming, patience: Patience, touch: Path) -> bool:
        """Read what is still missing of a file; true when the answer is at its end, whether or not all is there."""
        url = f"{constants.ENDPOINT}/{self.listing.repo_id}/resolve/{self.listing.commit}/{quote(file.path)}"
        range_ = {"Range": f"bytes={incoming.received}-"} if incoming.received else {}
        with get(url, self.listing.repo_id, patience, range_) as response:
            if response.status_code == 416:  # what came before is not what this host has
                _restart(incoming, patience)
                return True
            where = f"{self.listing.repo_id}@{self.listing.commit[:12]}/{file.path}"
            refuse(response, self.listing.repo_id, self.listing.commit, where)
            _check_headers(response, self.listing.commit, file)
            if incoming.received and response.status_code != 206:
                _restart(incoming, patience)
            for chunk in response.iter_raw():
                if self.stopped.is_set():
                    raise HubConnectionError(f"{file.path} was stopped", "pull again")
                if incoming.received + len(chunk) > file.size:
                    raise HubIntegrityError(f"{patience.what} is longer than the Hub announced", DISTRUST)
                incoming.write(chunk)
                patience.progress(incoming.received)
                with self.lock:
                    self.received += len(chunk)
                with contextlib.suppress(OSError):
                    os.utime(touch)
        return True


def _restart(incoming: Incoming, patience: Patience) -> None:
    incoming.restart()
    patience.restart()


def _check_headers(response: httpx2.Response, commit: str, file: Remote) -> None:
    """The Hub's answer names the commit and the digest; both must be the ones expected."""
    answers = [r for r in (*response.history, response) if of_hub(r)]
    first = next((r for r in answers if "X-Repo-Commit" in r.headers), answers[0])
    answered = first.headers.get("X-Repo-Commit", "")
    if answered != commit:
        raise HubIntegrityError(f"commit {commit[:12]} was answered with {answered[:40] or 'no commit'!r}", DISTRUST)
    tag = first.headers.get("X-Linked-ETag") or first.headers.get("ETag") or ""
    digest = tag.removeprefix("W/").strip('"')
    if not digest or digest not in (file.sha256, file.git):
        raise HubIntegrityError(f"{file.path} came with {tag[:80]!r}, which is not its digest", DISTRUST)
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise HubIntegrityError(f"{file.path} came compressed, though that was not requested", DISTRUST)
