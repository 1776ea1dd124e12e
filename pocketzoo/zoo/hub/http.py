"""HTTP requests to the Hub: retries, tokens, and errors explained.

They go through the Hub client's own HTTP session, but not through its functions: those send the user's token and the
name of the program around along, retry for minutes, and believe any answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

import httpx2
from huggingface_hub import constants, get_session, get_token

from pocketzoo.core.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
    message_of,
)
from pocketzoo.core.reading.environment import is_address
from pocketzoo.core.version import __version__

PATIENCE = 60.0  # seconds without progress before a transfer ends; POCKETZOO_PATIENCE says otherwise
with contextlib.suppress(ValueError):  # what is no number says nothing
    PATIENCE = float(os.environ.get("POCKETZOO_PATIENCE") or PATIENCE)
TOKEN = re.compile(r"[!-~]+")  # what a header may have
SILENCE = 10.0  # seconds that one read may take before the connection is made anew
SLICE = 0.25  # seconds between looks at an answer that does not come
STEP = 4096  # bytes; fewer than these in PATIENCE seconds are not progress
LARGE_STEP = 1 << 20  # bytes after which failures no longer count
LONGEST_ANSWER = 1 << 26  # bytes
DISTRUST = "do not use it; tell the repository's author"
NEED_TOKEN: set[str] = set()  # repositories that are gated or private; all others never see the token
T = TypeVar("T")


def is_offline() -> bool:
    """Whether no socket may be opened: HF_HUB_OFFLINE, or ``--offline``."""
    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


class Patience:
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
            raise HubConnectionError(f"cannot fetch {self.what}: hardly any data arrives", "try again later")

    def wait(self, error: Exception, seconds: float = 0.0) -> None:
        """Wait before the next try, or give up with ``error``'s reason."""
        pause = max(0.2 * 2**self.failures, seconds)
        self.failures += 1
        if pause >= self.left or self.stopped.wait(pause):
            if isinstance(error, HubError):
                raise error
            reason = " ".join(message_of(error).split()) or type(error).__name__
            raise HubConnectionError(
                f"cannot fetch {self.what}: {reason}", "check the connection, then try again"
            ) from error


def endpoint() -> SplitResult:
    """Where the Hub is.

    Raises:
        HubConnectionError: HF_ENDPOINT is not an address.
    """
    if not is_address(constants.ENDPOINT):
        raise HubConnectionError(
            f"HF_ENDPOINT is not an address: {constants.ENDPOINT!r}", "check HF_ENDPOINT; leave it unset for the Hub"
        )
    return urlsplit(constants.ENDPOINT)


def token() -> str | None:
    """The user's token, if it may be sent: never in the clear over a network.

    Raises:
        HubAccessError: it is not one, or cannot be read.
        HubConnectionError: HF_ENDPOINT is not an address.
    """
    url = endpoint()
    is_safe = url.scheme == "https" or url.hostname in ("127.0.0.1", "localhost", "::1")
    try:
        known = get_token() if is_safe else None
    except (OSError, ValueError) as error:  # of the file that it is kept in
        raise HubAccessError(f"cannot read the token: {message_of(error)}", "log in again, or set HF_TOKEN") from error
    if known is not None and not TOKEN.fullmatch(known):
        raise HubAccessError(
            "HF_TOKEN has characters that no token has", "copy it again: see huggingface.co/settings/tokens"
        )
    return known


def session() -> httpx2.Client:
    """The Hub client's session.

    Raises:
        HubConnectionError: it cannot be made with the proxies and certificates that are set.
    """
    try:
        client: httpx2.Client = get_session()
    except (ValueError, OSError, ImportError, httpx2.InvalidURL) as error:
        raise HubConnectionError(
            f"cannot prepare a connection: {message_of(error)}", f"check {_of_connections() or 'the certificates'}"
        ) from error
    return client


def _of_connections() -> str:
    """The variables about proxies and certificates that are set: an error of a library rarely says which is wrong.
    Not their values, for a proxy's has a password."""
    names = {"SSL_CERT_FILE", "SSL_CERT_DIR", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO"))}
    return ", ".join(sorted(name for name in os.environ if name.upper() in names))


@contextlib.contextmanager
def get(url: str, repo_id: str, patience: Patience, more: dict[str, str]) -> Iterator[httpx2.Response]:
    """Ask. Bytes are to be read raw: an encoding could unpack a few of them to gigabytes before anyone counts."""
    try:
        endpoint()  # where it is none, no other try helps
    except HubConnectionError as error:
        raise HubConnectionError(f"cannot ask for {repo_id or url}: {error.message}", error.hint) from error
    headers = {"User-Agent": f"pocketzoo/{__version__}", "Accept-Encoding": "identity", **more}
    if repo_id in NEED_TOKEN and (known := token()):
        headers["Authorization"] = f"Bearer {known}"
    try:
        request = session().build_request("GET", url, headers=headers, timeout=patience.timeout)
    except (ValueError, httpx2.InvalidURL) as error:
        raise HubConnectionError(f"cannot ask for {url}: {message_of(error)}", "check HF_ENDPOINT") from error
    response = _begin(request, patience)
    try:
        with _cut_off(response, patience):
            yield response
    finally:
        response.close()


def _begin(request: httpx2.Request, patience: Patience) -> httpx2.Response:
    """Send a request and read the head of its answer, in a thread that is left behind when patience ends.

    The client's own time-out is for one read: a head that comes byte by byte never meets it.
    """
    answer: Future[httpx2.Response] = Future()

    def send() -> None:
        try:
            response = session().send(request, stream=True, follow_redirects=True)
        except BaseException as error:  # it is raised where the answer is waited for
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(response)
        else:
            response.close()

    threading.Thread(target=send, daemon=True).start()
    for _ in range(1 + int(max(patience.left, 0) / SLICE)):  # counted, so that a machine asleep loses nothing
        with contextlib.suppress(FutureTimeout):
            return answer.result(SLICE)
    if answer.cancel():
        raise httpx2.ReadTimeout("its answer does not begin")
    return answer.result()  # it came in that moment


@contextlib.contextmanager
def _cut_off(response: httpx2.Response, patience: Patience) -> Iterator[None]:
    """End a read that patience does not outlast: what frames a body may come byte by byte as well."""
    over = threading.Event()

    def watch() -> None:
        late = 0
        while not over.wait(SLICE):
            late = late + 1 if patience.left < 0 else 0
            if late == 4:  # a machine that slept gets some time to read what lies there
                with contextlib.suppress(OSError):  # it is closed already
                    response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def of_hub(response: httpx2.Response) -> bool:
    """Whether the Hub itself answers, and not a host that it sends its files from."""
    hub = httpx2.URL(constants.ENDPOINT)
    return (response.url.scheme, response.url.host, response.url.port) == (hub.scheme, hub.host, hub.port)


class AgainError(Exception):
    """An answer that may be better next time."""

    def __init__(self, error: HubError, seconds: float = 0.0) -> None:
        super().__init__(message_of(error))
        self.error, self.seconds = error, seconds


def trying(call: Callable[[], T], patience: Patience) -> T | None:
    """Call once. What may pass is waited for, and None returned; what will not is raised."""
    try:
        return call()
    except AgainError as again:
        patience.wait(again.error, again.seconds)
    except HubError:
        raise
    except (httpx2.RequestError, httpx2.StreamError, httpx2.InvalidURL, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise  # the disk's, not the network's
        patience.wait(error)
    return None


def refuse(response: httpx2.Response, repo_id: str, revision: str, where: str) -> None:
    """Raise what a refusal means; return if it is none."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    if status < 400:
        return
    without = of_hub(response) and "Authorization" not in response.request.headers
    if repo_id and code in ("GatedRepo", "RepoNotFound") and without and token():
        NEED_TOKEN.add(repo_id)
        raise AgainError(HubAccessError(f"the Hub refuses {where} ({status})", "check HF_TOKEN"))
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
        raise AgainError(HubRateLimitError(f"the Hub limits requests now ({where})", hint), seconds)
    if status >= 500 or not of_hub(response):
        host = "the Hub" if of_hub(response) else response.url.host
        raise AgainError(HubConnectionError(f"{host} answers {status} for {where}", "try again later"))
    if repo_id and (code == "RepoNotFound" or status == 404):
        raise HubMissingError(f"the Hub has no {repo_id}, or it is private", "check the name; if private, set HF_TOKEN")
    if status in (401, 403):
        raise HubAccessError(
            f"the Hub refuses {where} ({status})", "check HF_TOKEN: see huggingface.co/settings/tokens"
        )
    raise HubConnectionError(f"the Hub answers {status} for {where}", "try again later")


def ask(question: str, repo_id: str, what: str, revision: str = "") -> bytes:
    """What the Hub's API answers."""
    patience = Patience(what, threading.Event())
    while True:
        answer = trying(lambda: _ask_once(question, repo_id, revision, patience), patience)
        if answer is not None:
            return answer


def _ask_once(question: str, repo_id: str, revision: str, patience: Patience) -> bytes:
    data = bytearray()
    with get(f"{constants.ENDPOINT}/api/{question}", repo_id, patience, {}) as response:
        refuse(response, repo_id, revision, patience.what)
        kind = response.headers.get("Content-Type", "")
        if response.status_code != 200 or not of_hub(response) or not kind.startswith("application/json"):
            what = f"{response.url.host} answers {patience.what} with {kind[:40]!r}"
            raise HubConnectionError(what, "check the connection: a login page, or HF_ENDPOINT is not a Hub")
        for chunk in response.iter_raw():
            data += chunk
            patience.progress(len(data))
            if len(data) > LONGEST_ANSWER:
                raise HubIntegrityError(f"the answer for {patience.what} does not end", DISTRUST)
    return bytes(data)
