"""Query, search and upload to repositories of the Hub."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from pocketzoo.core.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRenamedError,
    StorageError,
    UnsafeFileError,
)
from pocketzoo.core.progress import SILENT, Progress
from pocketzoo.core.reading.documents import parse_json
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.zoo.catalog.specs import Repository
from pocketzoo.zoo.hub.http import DISTRUST, ask, is_offline, token
from pocketzoo.zoo.hub.reference import COMMIT, REPOSITORY, is_inside
from pocketzoo.zoo.hub.store import Store
from pocketzoo.zoo.hub.store_layout import SHA256


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


def look_up(
    repo_id: str,
    revision: str,
    store: Store,
    progress: Progress = SILENT,
    *,
    fresh: bool = False,
    offline: bool = False,
) -> Listing:
    """Resolve a revision and list its files. A commit that was listed before makes no request, and ``offline`` none.

    When the Hub does not answer, or no longer gives this repository, the commit that a branch or tag was last seen at
    is taken if it was fetched before, unless ``fresh`` forbids it; ``progress`` says so.

    Raises:
        HubError: one of its family.
        UnsafeFileError: a file of the repository would leave the folder it is unpacked to.
    """
    check_name(repo_id)
    known = COMMIT.fullmatch(revision) and _stored_listing(repo_id, revision, store)
    if known:
        return known
    try:
        if offline or is_offline():
            raise HubConnectionError(
                f"{repo_id}@{revision[:12]} is not stored, and this is offline",
                f"go online once: pocketzoo pull hf://{repo_id}{'' if revision == 'main' else f'@{revision}'}",
            )
        what = f"{repo_id}@{revision[:12]}"
        answer = ask(f"models/{repo_id}/revision/{quote(revision, safe='')}?blobs=true", repo_id, what, revision)
        with _reading(what):
            listing = _read_listing(repo_id, revision, answer)
    except HubError as error:
        commit = None if fresh or isinstance(error, HubIntegrityError) else store.last(repo_id, revision)
        known = _stored_listing(repo_id, commit, store) if commit else None
        if not known:
            raise
        progress.say(f"{error.message}; using {revision} as last seen: {known.commit[:12]}")
        return known
    if COMMIT.fullmatch(revision) and listing.commit != revision:
        raise HubIntegrityError(f"{repo_id}@{revision[:12]} was answered with commit {listing.commit[:12]}", DISTRUST)
    with contextlib.suppress(StorageError):  # a store that is read-only or full: the Hub is asked again next time
        store.note_listing(repo_id, listing.commit, to_plain(listing))
        if listing.commit != revision:
            store.remember(repo_id, revision, listing.commit)
    return listing


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
    parameters = {"search": words, "filter": library, "pipeline_tag": task, "sort": "downloads", "limit": limit}
    query = urlencode({k: v for k, v in parameters.items() if v is not None} | {"expand": fields}, doseq=True)
    answer = ask(f"models?{query}", "", f"models called {words!r}")
    with _reading(f"models called {words!r}"):
        return [_read_found(info) for info in parse_json(answer)[:limit] if REPOSITORY.fullmatch(info["id"])]


def upload(repo_id: str, folder: Path, message: str, *, private: bool) -> str:
    """Commit the files of a folder to a repository, which is made if it is not there; returns the commit.

    Raises:
        HubAccessError: there is no token that may be sent, or the Hub does not accept it.
        HubError: one of its family.
    """
    known = check_upload(repo_id)
    try:
        api = HfApi(endpoint=constants.ENDPOINT, token=known)
        api.create_repo(repo_id, private=private, exist_ok=True)
        logging.getLogger("huggingface_hub").setLevel(
            logging.ERROR
        )  # how often it tries again is not what a user asked; how it ends is raised
        return str(api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message).oid)
    except HfHubHTTPError as error:
        reason = str(error).strip().splitlines()[-1]
        raise HubAccessError(f"the Hub refuses {repo_id}: {reason}", "check that HF_TOKEN may write there") from error
    except (httpx2.TransportError, RuntimeError) as error:  # hf_xet raises a bare RuntimeError
        raise HubConnectionError(
            f"cannot upload to {repo_id}: {error}", "check the connection, then push again"
        ) from error


def check_upload(repo_id: str) -> str:
    """The token for an upload, before anything is prepared for one.

    Raises:
        HubAccessError: there is no token that may be sent.
        HubError: it is not a repository name, or this is offline.
    """
    check_name(repo_id)
    if is_offline():
        raise HubConnectionError("a push needs the Hub, and this is offline", "leave out --offline")
    if not (known := token()):
        raise HubAccessError("a push needs a token", "make one at huggingface.co/settings/tokens, then set HF_TOKEN")
    return known


def check_name(repo_id: str) -> None:
    """Refuse what the Hub would not call a repository, before it gets into an address.

    Raises:
        HubMissingError: it is no such name.
    """
    if not REPOSITORY.fullmatch(repo_id):
        raise HubMissingError(f"{repo_id!r} is not a repository name", "write hf://org/name")


def _stored_listing(repo_id: str, commit: str, store: Store) -> Listing | None:
    data = store.listing(repo_id, commit)
    with contextlib.suppress(ValueError):  # written by another version
        return from_plain(Listing, data) if data else None
    return None


@contextlib.contextmanager
def _reading(what: str) -> Iterator[None]:
    """Reading an answer that may be anything."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise HubIntegrityError(f"the answer for {what} is not one of a Hub", DISTRUST) from error


def _read_listing(repo_id: str, revision: str, answer: bytes) -> Listing:
    info = parse_json(answer)
    name, commit = info["id"], info["sha"]
    if not REPOSITORY.fullmatch(name) or not COMMIT.fullmatch(commit):
        raise HubIntegrityError(f"{repo_id}@{revision} was answered with commit {str(commit)[:40]!r}", DISTRUST)
    if name.lower() != repo_id.lower():
        raise HubRenamedError(f"{repo_id} was renamed to {name}", f"write hf://{name}")
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
        raise UnsafeFileError(f"{repo_id} has a file called {path!r}", DISTRUST)
    git = sibling.get("blobId") or ""
    size, digest = (lfs["size"], lfs["sha256"]) if lfs else (sibling.get("size"), "")
    if type(size) is not int or size < 0 or not COMMIT.fullmatch(git) or (lfs and not SHA256.fullmatch(digest)):
        raise HubIntegrityError(f"the Hub states no digest of {path} of {repo_id}", DISTRUST)
    return Remote(path, size, digest, git)


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
