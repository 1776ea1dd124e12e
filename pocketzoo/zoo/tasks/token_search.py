"""Greedy and beam search over next-token logits. numpy only."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from pocketzoo.core.numerics import log_softmax

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
NEVER = -1e9  # the score of what cannot be chosen


class Writer(Protocol):
    """A model that writes several texts of one length side by side, and remembers them."""

    def begin(self, ids: Ids) -> Logits:
        """Read a text (1, T); logits (1, vocabulary) of what comes next."""
        ...

    def keep(self, rows: Ids) -> None:
        """Go on with these of the texts, some of them more than once."""
        ...

    def add(self, ids: Ids) -> Logits:
        """One token (B, 1) more for each text; logits (B, vocabulary) of what comes next."""
        ...


def greedy(writer: Writer, ids: Ids, *, longest: int, end: Collection[int]) -> list[int]:
    """The likeliest token again and again, until one of ``end`` or ``longest`` tokens."""
    logits = writer.begin(ids)
    written = [int(logits[0].argmax())]
    while written[-1] not in end and len(written) < longest:
        written.append(int(writer.add(np.array([written[-1:]], np.int64))[0].argmax()))
    return written


def beam_search(
    writer: Writer,
    ids: Ids,
    *,
    beams: int,
    longest: int,
    end: Collection[int],
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
) -> list[int]:
    """The best of the texts that are written when at each step the ``beams`` likeliest are followed.

    A finished text scores its summed log probability divided by its length to the power of ``length_penalty``, so above
    0 longer texts gain. With ``early_stopping`` it ends once ``beams`` are finished; with False also when the likeliest
    open text, as long as it is now, scores below the worst of them; with "never" only when no length up to ``longest``
    could help it above. These are the rules of ``generate`` in transformers, which this gives the same tokens as.
    """
    scores = np.array([0.0] + [NEVER] * (beams - 1), np.float32)  # all begin alike, so only the first counts
    texts: list[list[int]] = [[] for _ in range(beams)]
    finished: list[tuple[float, list[int]]] = []  # the best first
    logits = np.repeat(writer.begin(ids), beams, 0)
    writer.keep(np.zeros(beams, np.int64))
    width = max(2, 1 + len(end)) * beams  # enough, should all of the first end
    for length in range(1, longest + 1):
        total = (scores[:, None] + log_softmax(logits)).ravel()
        order = np.argsort(-total, kind="stable")[:width]
        rows, tokens = np.divmod(order, logits.shape[-1])
        over = np.isin(tokens, list(end)) | (length == longest)
        for i in np.flatnonzero(over[:beams]):
            finished.append((float(total[order[i]]) / length**length_penalty, [*texts[rows[i]], int(tokens[i])]))
        finished = sorted(finished, key=lambda text: -text[0])[:beams]
        if over.all():
            break
        going = np.flatnonzero(~over)[:beams]
        if len(going) < beams:  # those that ended fill up, and can no longer win
            going = np.concatenate([going, np.flatnonzero(over)])[:beams]
        scores = (total[order] + over * np.float32(NEVER))[going].astype(np.float32)
        texts = [[*texts[rows[i]], int(tokens[i])] for i in going]
        if len(finished) == beams:
            reach = longest if early_stopping == "never" and length_penalty > 0.0 else length
            if early_stopping is True or scores[0] / reach**length_penalty <= finished[-1][0]:
                break
        writer.keep(rows[going])
        logits = writer.add(tokens[going, None].astype(np.int64))
    return finished[0][1]
