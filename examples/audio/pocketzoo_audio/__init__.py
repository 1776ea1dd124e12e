"""Sound for pocketzoo: the processor ``log-mel`` and the backbone ``audio-cnn``.

Light imports only: this file is read by every ``pocketzoo list``. What opens and builds imports numpy and torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pocketzoo.api import BackboneSpec, FeatureSpec, Processor, ProcessorSpec, RecipeError, hookimpl
from pocketzoo_audio.config import LogMelSpec

if TYPE_CHECKING:
    from torch import nn

CHANNELS = (16, 32, 64)  # of the blocks, each of which halves both axes
OPTIONS = LogMelSpec()


@hookimpl
def pocketzoo_processors() -> list[ProcessorSpec]:
    return [
        ProcessorSpec(
            name="log-mel",
            summary="sound as a log-mel spectrogram of a fixed length",
            modality="audio",
            reads="WAV files or their bytes, or samples of one channel from -1 to 1 at the model's own rate",
            config=LogMelSpec,
            open=_open,
            argument="SOUND.wav",
            suffixes=(".wav",),
            example=_example,
        )
    ]


@hookimpl
def pocketzoo_backbones() -> list[BackboneSpec]:
    return [_spec(OPTIONS)]


def _spec(options: LogMelSpec) -> BackboneSpec:
    if options.style != "whisper":
        raise RecipeError(f"audio-cnn reads no spectrograms of style {options.style!r}", "leave it as it is: whisper")
    height, width = options.mels, options.frames
    for _ in CHANNELS:
        height, width = -(-height // 2), -(-width // 2)
    return BackboneSpec(
        name="audio-cnn",
        summary=f"CNN of {len(CHANNELS)} blocks on log-mel spectrograms of a second, not pretrained",
        license="Apache-2.0",
        input=options,
        features=FeatureSpec("map", ("batch", CHANNELS[-1], height, width)),
        build=_build,
        source="https://arxiv.org/abs/1609.09430",
        options=LogMelSpec,
        configure=_spec,
    )


def _open(config: LogMelSpec, files: Mapping[str, Path]) -> Processor:
    from pocketzoo_audio.log_mel import LogMel

    return LogMel(config)


def _example(config: LogMelSpec, folder: Path) -> list[object]:
    from pocketzoo_audio.wav_files import tones

    return tones(config.rate, folder)


def _build() -> nn.Module:
    from pocketzoo_audio.network import AudioNetwork

    return AudioNetwork(CHANNELS)
