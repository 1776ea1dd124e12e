"""A pinned Hub file to a verified local one; the only module that talks to the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pocketzoo.errors import HubError
from pocketzoo.zoo.files import sha256
from pocketzoo.zoo.specs import HubFile


def fetch(file: HubFile) -> Path:
    """Download ``file``, or find it in the cache; a pinned file that is cached makes no request.

    Raises:
        HubError: the Hub does not give it, or its bytes are not the pinned ones (they are deleted again).
    """
    where = f"{file.repo_id}@{file.revision[:12]}/{file.filename}"
    if not re.fullmatch(r"[0-9a-f]{40}", file.revision):
        raise HubError(f"{file.repo_id} is pinned to {file.revision!r}", "pin a commit of 40 hex digits, no branch")
    try:
        # hf_hub_download asks the Hub for its list of agents even for a file that is cached; this asks for nothing.
        cached = try_to_load_from_cache(file.repo_id, file.filename, revision=file.revision)
    except HFValidationError as error:
        raise HubError(f"{file.repo_id!r} is no repository: {error}", "tell the plugin's author") from error
    if isinstance(cached, str) and sha256(Path(cached)) == file.sha256:
        return Path(cached)
    # No token goes along: everything pinned by a plugin is public, and HF_ENDPOINT may name any host.
    for _attempt in (1, 2):
        try:
            path = Path(hf_hub_download(file.repo_id, file.filename, revision=file.revision, token=False))
        except GatedRepoError as error:
            raise HubError(f"{file.repo_id} is gated", "ask for access on its page, then log in") from error
        except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
            if not isinstance(error, LocalEntryNotFoundError):  # that one means: no connection, and no copy
                raise HubError(f"the Hub has no {where}", "tell the plugin's author that its pin is stale") from error
            raise HubError(f"cannot fetch {where}: no connection", "check the connection, then try again") from error
        except Exception as error:  # its HTTP package's own types, local disk, hf_xet's bare RuntimeError
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise HubError(f"cannot fetch {where}: {problem}", "check the connection, then try again") from error
        if sha256(path) == file.sha256:
            return path
        # The client checks sizes only, so a byte flipped on the way stays in its cache for good: remove, try once more.
        path.resolve().unlink()
        path.unlink(missing_ok=True)
    raise HubError(f"{where} has other bytes than pinned (sha256)", "do not use it; tell the plugin's author")
