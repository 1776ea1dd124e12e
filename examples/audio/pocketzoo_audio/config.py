"""What a log-mel spectrogram is of one model. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pocketzoo.api import RecipeError

# Of each style: samples of a frame at 16 kHz, and of its Fourier transform.
WINDOW_SECONDS = 0.025


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMelSpec:
    """Sound as float32: (B, mels, frames) in the style of Whisper, (B, frames, mels) in that of Kaldi.

    "whisper" is what Whisper reads (Radford et al. 2022, arXiv:2212.04356): power in filters of Slaney's mel scale, the
    decimal logarithm, 80 dB below the loudest at the least, about -1 to 1.5. "kaldi" is what the Audio Spectrogram
    Transformer reads (Gong et al. 2021, arXiv:2104.01778): frames without their mean, with preemphasis, filters of the
    HTK mel scale, the natural logarithm, and ``(x - mean) / (2 std)``.
    """

    style: Literal["whisper", "kaldi"] = "whisper"
    rate: int = 16000  # samples per second; files of another are resampled
    seconds: float = 1.0  # shorter sound is filled up with silence, longer is cut
    mels: int = 64
    hop: int = 160  # samples from one frame to the next
    resample: bool = True  # False: a file of another rate is refused
    mean: float = -4.2677393  # of "kaldi" alone: AudioSet's
    std: float = 4.5689974
    name: str = "input_features"

    def __post_init__(self) -> None:
        for what, least in (("rate", 1000), ("mels", 1), ("hop", 1)):
            if getattr(self, what) < least:
                raise RecipeError(f"{what} cannot be {getattr(self, what)}", f"give {least} or more")
        if not self.samples >= self.window:
            raise RecipeError(f"seconds cannot be {self.seconds}", f"give {WINDOW_SECONDS} or more")
        if not self.std > 0:
            raise RecipeError(f"std cannot be {self.std}", "give a number above 0")

    @property
    def samples(self) -> int:
        """Of the sound that the model reads."""
        return round(self.seconds * self.rate)

    @property
    def window(self) -> int:
        """Samples of a frame: 25 ms."""
        return round(WINDOW_SECONDS * self.rate)

    @property
    def frames(self) -> int:
        """Of the spectrogram: centered ones for Whisper, for Kaldi those that lie inside the sound."""
        return self.samples // self.hop if self.style == "whisper" else 1 + (self.samples - self.window) // self.hop
