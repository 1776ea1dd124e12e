"""How long a transfer is waited for, on a clock that stands still, and what a refusal of the Hub means."""

from __future__ import annotations

import threading

import httpx2
import pytest
from huggingface_hub import constants

from pocketzoo.core.errors import (
    HubAccessError,
    HubConnectionError,
    HubError,
    HubIntegrityError,
    HubMissingError,
    HubRateLimitError,
)
from pocketzoo.zoo.hub import http
from pocketzoo.zoo.hub.http import LARGE_STEP, PATIENCE, SILENCE, STEP, AgainError, Patience, refuse, token, trying

HUB = "https://huggingface.co"


class Clock:
    """Moves when something waits."""

    def __init__(self) -> None:
        self.now, self.waits = 1000.0, []

    def monotonic(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        """As an event that nobody sets."""
        self.waits.append(round(seconds, 6))
        self.now += seconds
        return False


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(http.time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def patience(clock) -> Patience:
    return Patience("a file", clock)


def test_tries_come_less_and_less_often_until_patience_ends(clock, patience, refused):
    with refused(HubConnectionError, "cannot fetch a file: it is gone", hint="check the connection"):
        for _ in range(20):
            patience.wait(OSError("it  is\ngone"))
    assert clock.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]
    assert sum(clock.waits) < PATIENCE < sum(clock.waits) + 51.2


def test_the_hub_may_ask_for_more_time_and_not_for_more_than_there_is(clock, patience):
    patience.wait(OSError(), 5.0)
    assert clock.waits == [5.0]
    late = HubRateLimitError("later", "wait")
    with pytest.raises(HubRateLimitError) as caught:
        patience.wait(late, PATIENCE)
    assert caught.value is late
    assert clock.waits == [5.0]


def test_who_is_stopped_does_not_wait(clock):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(HubConnectionError, match="ValueError"):
        Patience("a file", stopped).wait(ValueError())


def test_bytes_are_progress_and_a_few_are_not(clock, patience, refused):
    clock.now += PATIENCE - 1
    patience.progress(STEP)
    assert patience.left == PATIENCE
    clock.now += PATIENCE
    patience.progress(2 * STEP - 1)
    assert patience.left == 0.0
    clock.now += 1
    with refused(HubConnectionError, "hardly any data arrives", hint="later"):
        patience.progress(2 * STEP - 1)
    patience.restart()
    patience.progress(1)
    assert patience.left == PATIENCE


def test_failures_are_forgotten_after_many_bytes(clock, patience):
    for _ in range(3):
        patience.wait(OSError())
    patience.progress(LARGE_STEP - 1)
    assert patience.failures == 3
    patience.progress(LARGE_STEP)
    assert (patience.failures, patience.furthest) == (0, LARGE_STEP)
    patience.restart()
    patience.wait(OSError())
    patience.progress(LARGE_STEP + 5)
    assert patience.failures == 1, "the same bytes again are no progress"


@pytest.mark.parametrize(("gone", "timeout"), [(0.0, SILENCE), (PATIENCE - 4, 4.0), (PATIENCE + 9, 0.1)])
def test_one_read_takes_no_longer_than_patience_lasts(gone, timeout, clock, patience):
    clock.now += gone
    assert patience.timeout == pytest.approx(timeout)


# -- what a refusal means


def answer(status: int, code: str = "", host: str = HUB, **headers: str) -> httpx2.Response:
    given = {"X-Error-Code": code} if code else {}
    return httpx2.Response(status, headers={**given, **headers}, request=httpx2.Request("GET", f"{host}/o/m"))


@pytest.fixture
def at_hub(monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", HUB)
    monkeypatch.setattr(http, "get_token", lambda: None)
    monkeypatch.setattr(http, "NEED_TOKEN", set())


@pytest.mark.usefixtures("at_hub")
@pytest.mark.parametrize(
    ("response", "kind", "text", "hint"),
    [
        (answer(403, "GatedRepo"), HubAccessError, "o/m is gated", "HF_TOKEN"),
        (answer(404, "RevisionNotFound"), HubMissingError, "o/m has no revision 'v1'", "branches"),
        (answer(404, "EntryNotFound"), HubMissingError, "the Hub has no a file", "see the repository's files"),
        (answer(401, "RepoNotFound"), HubMissingError, "the Hub has no o/m, or it is private", "HF_TOKEN"),
        (answer(404), HubMissingError, "the Hub has no o/m, or it is private", "check the name"),
        (answer(401), HubAccessError, "the Hub refuses a file (401)", "tokens"),
        (answer(403), HubAccessError, "the Hub refuses a file (403)", "tokens"),
        (answer(400), HubConnectionError, "the Hub answers 400 for a file", "later"),
    ],
)
def test_a_refusal_is_explained(response, kind, text, hint, refused):
    with refused(kind, text, hint=hint):
        refuse(response, "o/m", "v1", "a file")


@pytest.mark.usefixtures("at_hub")
@pytest.mark.parametrize(
    ("response", "kind", "text", "hint", "seconds"),
    [
        (answer(429), HubRateLimitError, "the Hub limits requests now (a file)", "try again later", 0.0),
        (answer(429, **{"Retry-After": "7"}), HubRateLimitError, "limits", "try again in 7 seconds", 7.0),
        (answer(429, **{"Retry-After": "soon"}), HubRateLimitError, "limits", "try again later", 0.0),
        (answer(500), HubConnectionError, "the Hub answers 500 for a file", "try again later", 0.0),
        (answer(503), HubConnectionError, "the Hub answers 503 for a file", "try again later", 0.0),
        (answer(404, host="https://cdn.example"), HubConnectionError, "cdn.example answers 404", "later", 0.0),
    ],
)
def test_what_may_pass_is_to_be_tried_again(response, kind, text, hint, seconds):
    with pytest.raises(AgainError) as caught:
        refuse(response, "o/m", "v1", "a file")
    assert type(caught.value.error) is kind
    assert text in caught.value.error.message
    assert hint in caught.value.error.hint
    assert caught.value.seconds == seconds


@pytest.mark.usefixtures("at_hub")
def test_what_is_no_refusal_passes():
    for status in (200, 206, 302, 399):
        refuse(answer(status), "o/m", "v1", "a file")


@pytest.mark.usefixtures("at_hub")
def test_a_token_is_sent_once_it_is_needed_and_only_to_the_hub(monkeypatch):
    monkeypatch.setattr(http, "get_token", lambda: "secret")
    with pytest.raises(HubMissingError):
        refuse(answer(404, "EntryNotFound"), "o/m", "v1", "a file")
    with pytest.raises(HubAccessError, match="is gated"):
        refuse(answer(403, "GatedRepo", host="https://cdn.example"), "o/m", "v1", "a file")
    assert not http.NEED_TOKEN
    with pytest.raises(AgainError):
        refuse(answer(403, "GatedRepo"), "o/m", "v1", "a file")
    assert list(http.NEED_TOKEN) == ["o/m"]
    sent = answer(403, "GatedRepo")
    sent.request.headers["Authorization"] = "Bearer secret"
    with pytest.raises(HubAccessError, match="is gated"):
        refuse(sent, "o/m", "v1", "a file")


@pytest.mark.parametrize(
    ("endpoint", "sent"),
    [(HUB, True), ("http://127.0.0.1:80", True), ("http://localhost", True), ("http://[::1]:9", True),
     ("http://hub.example", False)],
)  # fmt: skip
def test_a_token_is_not_sent_in_the_clear(endpoint, sent, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(http, "get_token", lambda: "secret")
    assert token() == ("secret" if sent else None)


# -- what is tried again


def raising(error: BaseException):
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    "error", [httpx2.ReadTimeout("slow"), ConnectionResetError(104, "reset"), OSError("no number"),
              AgainError(HubRateLimitError("a", "b"), 3.0)],
)  # fmt: skip
def test_what_may_pass_is_waited_for(error, clock, patience):
    assert trying(raising(error), patience) is None
    assert clock.waits == [3.0 if isinstance(error, AgainError) else 0.2]


@pytest.mark.parametrize("error", [HubIntegrityError("a", "b"), OSError(28, "no space"), ValueError("a bug")])
def test_what_will_not_pass_is_raised(error, clock, patience):
    with pytest.raises(type(error)) as caught:
        trying(raising(error), patience)
    assert caught.value is error
    assert clock.waits == []
    assert trying(lambda: 5, patience) == 5


def test_an_answer_that_may_be_better_is_not_asked_to_wait():
    again = AgainError(HubError("what", "hint"))
    assert again.seconds == 0.0
    assert again.error.message in str(again)
