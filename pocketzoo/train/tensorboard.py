"""Write the metrics of each epoch as TensorBoard events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketzoo.core.optional import require

if TYPE_CHECKING:
    from pocketzoo.train.training_loop import History
    from pocketzoo.train.validation import Validation


class EventLog:
    """Loss of training, metric of validation and rate of the head, by epoch, in event files of a folder."""

    def __init__(self, folder: Path, validation: Validation) -> None:
        """Nothing is written before an epoch is finished.

        Raises:
            MissingDependencyError: TensorBoard is not installed.
        """
        require("tensorboard", extra="tensorboard")
        self.folder, self.validation = folder, validation
        self._writer: Any = None

    def __call__(self, history: History) -> None:
        """Note the last finished epoch. One that an earlier, killed run had noted too counts as this run says."""
        if self._writer is None:
            events: Any = require("torch.utils.tensorboard", extra="tensorboard")
            self._writer = events.SummaryWriter(str(self.folder), purge_step=history.epoch)
        scores = [self.validation.sign * score for score in history.scores]
        for name, values in (
            ("loss/train", history.losses), (f"{self.validation.name}/val", scores), ("rate/head", history.rates)
        ):  # fmt: skip
            self._writer.add_scalar(name, values[-1], history.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
