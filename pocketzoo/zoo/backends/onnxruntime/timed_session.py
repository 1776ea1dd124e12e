"""Runs of a foreign graph that end: a loop of 2^60 rounds is a few bytes, and onnxruntime would go through them all."""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Timer
from typing import TYPE_CHECKING, Any

from pocketzoo.core.arrays import Arrays
from pocketzoo.core.optional import require
from pocketzoo.core.untrusted.limits import IMPORT_SECONDS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class TimeLeft:
    """The seconds that all runs on a foreign graph may take together."""

    def __init__(self, whose: str) -> None:
        self.whose, self.left = whose, float(IMPORT_SECONDS.value)


class TimedSession:
    """A session whose runs take from the time that is left."""

    def __init__(self, session: InferenceSession, time_left: TimeLeft) -> None:
        self.session, self.time_left = session, time_left

    def get_outputs(self) -> Any:
        return self.session.get_outputs()

    def run(self, outputs: Sequence[str], feed: Arrays) -> Any:
        """What the session's own does.

        Raises:
            TooLargeError: the time is over. A run stops before the next node, or the next round of a loop.
            Exception: onnxruntime's own.
        """
        options = require("onnxruntime").RunOptions()
        options.log_severity_level = 4
        began = time.monotonic()
        timer = Timer(self.time_left.left, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            return self.session.run(list(outputs), dict(feed), options)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            if options.terminate:
                seconds = IMPORT_SECONDS.value
                raise IMPORT_SECONDS.refusal(
                    f"{self.time_left.whose} runs longer than {seconds} second{'s' * (seconds > 1)}"
                ) from error
            raise
        finally:
            timer.cancel()
            self.time_left.left = max(0.0, self.time_left.left - (time.monotonic() - began))
