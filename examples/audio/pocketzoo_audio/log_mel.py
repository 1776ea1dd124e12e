"""The processor ``log-mel``, in numpy: the same for training and on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketzoo.api import Arrays, DataError, ProcessorBase, TensorSpec
from pocketzoo_audio.config import LogMelSpec
from pocketzoo_audio.mel_filters import kaldi_filters, slaney_filters
from pocketzoo_audio.resampling import resampled
from pocketzoo_audio.wav_files import read_wav

Wave = npt.NDArray[np.float32]
QUIET = 1e-10  # power, of Whisper's logarithm
RANGE = 8.0  # decades of power below the loudest
PREEMPHASIS = 0.97
EPSILON = float(np.finfo(np.float32).eps)  # power, of Kaldi's logarithm


class LogMel(ProcessorBase):
    """Sound as a log-mel spectrogram. A Fourier transform is in float64, and so are the filters."""

    def __init__(self, spec: LogMelSpec) -> None:
        self.spec = spec
        whisper = spec.style == "whisper"
        shape = (spec.mels, spec.frames) if whisper else (spec.frames, spec.mels)
        self.inputs = (TensorSpec(name=spec.name, shape=("batch", *shape)),)
        self.wants = f"give WAV files, or float32 samples of one channel from -1 to 1, {spec.rate} a second"
        self._length = spec.window if whisper else 1 << (spec.window - 1).bit_length()  # of the Fourier transform
        bins = self._length // 2 + 1
        self._filters = (slaney_filters if whisper else kaldi_filters)(bins, spec.mels, spec.rate)
        self._window = np.hanning(spec.window + 1)[:-1] if whisper else np.hanning(spec.window)

    def row(self, sample: Any) -> Arrays:
        """The spectrogram of one sound."""
        wave = self._wave(sample)
        features = self._whisper(wave) if self.spec.style == "whisper" else self._kaldi(wave)
        return {self.spec.name: features}

    def samples(self, given: Any) -> Sequence[Any]:
        """One sound or several: samples (N,), or a row for each."""
        if isinstance(given, np.ndarray) and given.ndim in (1, 2):
            return [given] if given.ndim == 1 else list(given)
        return super().samples(given)

    def truncated(self, samples: Sequence[Any]) -> int:
        return sum(self._is_longer(sample) for sample in samples if not isinstance(sample, Mapping))

    def _is_longer(self, sample: Any) -> bool:
        if isinstance(sample, str | Path | bytes):  # without resampling it
            wave, rate = read_wav(sample if isinstance(sample, bytes) else _read(Path(sample)), str(sample)[:60])
            return len(wave) * self.spec.rate > self.spec.samples * rate
        return len(self._wave(sample)) > self.spec.samples

    def random(self, count: int, length: int = 0) -> Arrays:
        """Spectrograms of noise."""
        noise = np.random.default_rng(0).normal(size=(count, self.spec.samples), scale=0.1)
        return self([np.clip(row, -1, 1).astype(np.float32) for row in noise])

    def _wave(self, sample: Any) -> Wave:
        """Samples of one channel at the model's rate, however the sound was given."""
        if isinstance(sample, np.ndarray):
            return self._checked(sample)
        if isinstance(sample, bytes):
            wave, rate = read_wav(sample, "of these bytes")
        elif isinstance(sample, str | Path):
            wave, rate = read_wav(_read(Path(sample)), str(sample))
        else:
            raise DataError(f"a sound cannot be {type(sample).__name__}", self.wants)
        if rate != self.spec.rate and not self.spec.resample:
            raise DataError(
                f"the sound has {rate} samples a second, the model reads {self.spec.rate}", "resample it, or refit"
            )
        return resampled(wave, rate, self.spec.rate)

    def _checked(self, wave: npt.NDArray[Any]) -> Wave:
        if wave.ndim != 1 or not len(wave):
            raise DataError(f"samples of shape {wave.shape} are not a sound of one channel", self.wants)
        if wave.dtype == np.int16:
            return wave.astype(np.float32) / np.float32(32768)
        if wave.dtype.kind != "f":
            raise DataError(f"samples of {wave.dtype} are not from -1 to 1", self.wants)
        if not np.isfinite(wave).all():
            raise DataError("the sound has samples that are not finite", "check the data for NaN and infinity")
        return wave.astype(np.float32, copy=False)

    def _whisper(self, wave: Wave) -> Wave:
        spec = self.spec
        whole = np.zeros(spec.samples, np.float32)
        whole[: len(wave)] = wave[: spec.samples]
        frames = self._frames(np.pad(whole, spec.window // 2, mode="reflect"))[: spec.frames]
        logs = np.log10(np.maximum(self._power(frames), QUIET)).astype(np.float32)
        logs = np.maximum(logs, logs.max() - np.float32(RANGE))
        return np.ascontiguousarray((logs.T + np.float32(4)) / np.float32(4))

    def _kaldi(self, wave: Wave) -> Wave:
        spec = self.spec
        out = np.zeros((spec.frames, spec.mels), np.float32)
        frames = self._frames(wave[: spec.samples])[: spec.frames]
        if len(frames):
            frames = frames - frames.mean(1, keepdims=True)
            before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
            out[: len(frames)] = np.log(np.maximum(self._power(frames - PREEMPHASIS * before), EPSILON))
        return (out - np.float32(spec.mean)) / np.float32(2 * spec.std)

    def _frames(self, wave: Wave) -> npt.NDArray[np.float64]:
        """(frames, window), each a hop after the one before; none where the sound is shorter than one."""
        if len(wave) < self.spec.window:
            return np.empty((0, self.spec.window))
        windows = np.lib.stride_tricks.sliding_window_view(wave, self.spec.window)[:: self.spec.hop]
        return windows.astype(np.float64)

    def _power(self, frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(frames, mels): the power in each filter."""
        spectrum = np.fft.rfft(frames * self._window, self._length)
        power: npt.NDArray[np.float64] = (np.square(spectrum.real) + np.square(spectrum.imag)) @ self._filters
        return power


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"there is no sound {path}", "check the path") from error
    except OSError as error:
        raise DataError(f"cannot read the sound {path}: {error.strerror}", "check the path") from error
