"""The processor of examples/audio: equal to transformers' feature extractors, and what WAV files it reads."""

from __future__ import annotations

import io
import struct
import wave
from math import gcd

import numpy as np
import pytest
from audiopackage import PACKAGE
from hypothesis import given
from hypothesis import strategies as st
from pocketzoo_audio.config import LogMelSpec
from pocketzoo_audio.log_mel import LogMel
from pocketzoo_audio.resampling import resampled
from pocketzoo_audio.wav_files import read_wav, write_wav

from pocketzoo.core.errors import DataError, RecipeError

RATE = 16000
SPEC = LogMelSpec()
KALDI = LogMelSpec(style="kaldi", mels=128, seconds=1.015)
LENGTHS = (1, 100, 399, 401, 4000, 15999, 16000, 16001, 30000)
assert PACKAGE.is_dir()


def signals(count: int) -> dict[str, np.ndarray]:
    random, t = np.random.default_rng(count), np.arange(count) / RATE
    click = np.zeros(count)
    click[count // 2] = 1
    waves = {
        "noise": random.normal(size=count) * 0.1,
        "faint noise": random.normal(size=count) * 1e-5,
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
        "chirp": 0.9 * np.sin(2 * np.pi * (50 + 2000 * t) * t),
        "vowel": sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 40)) * 0.2,
        "silence": np.zeros(count),
        "click": click,
        "square": np.sign(np.sin(2 * np.pi * 100 * t)),
        "offset": 0.3 + random.normal(size=count) * 1e-4,
    }
    return {name: x.astype(np.float32) for name, x in waves.items()}


def features(spec: LogMelSpec, x: np.ndarray) -> np.ndarray:
    return LogMel(spec)([x])[spec.name][0]


# -- against transformers


@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("mels", [40, 64, 80])
def test_whisper_is_that_of_transformers(count, mels):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.WhisperFeatureExtractor(feature_size=mels, chunk_length=1)
    for name, x in signals(count).items():
        ours = features(LogMelSpec(mels=mels), x)
        whole = np.zeros(RATE, np.float32)
        whole[: min(count, RATE)] = x[:RATE]
        np.testing.assert_allclose(ours, theirs._np_extract_fbank_features(whole[None], "cpu")[0], atol=1e-5, rtol=0)
        # Its other way is torch's transform in 32 bits, which is coarser where one band is far louder than another.
        tolerance = 1e-5 if name in ("noise", "faint noise", "silence", "square") else 2e-4
        in_torch = theirs(x, sampling_rate=RATE, return_tensors="np")["input_features"][0]
        np.testing.assert_allclose(ours, in_torch, atol=tolerance, rtol=0, err_msg=name)


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")  # of 128, in its own settings too
@pytest.mark.parametrize("count", [c for c in LENGTHS if c > 399])
@pytest.mark.parametrize("mels", [64, 128])
def test_kaldi_is_that_of_transformers(count, mels):
    transformers = pytest.importorskip("transformers")
    spec = LogMelSpec(style="kaldi", mels=mels, seconds=1.015)
    theirs = transformers.ASTFeatureExtractor(num_mel_bins=mels, max_length=spec.frames)
    for name, x in signals(count).items():
        expected = theirs(x, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(features(spec, x), expected, atol=1e-5, rtol=0, err_msg=name)


def test_whisper_itself_reads_thirty_seconds():
    transformers = pytest.importorskip("transformers")
    spec = LogMelSpec(mels=80, seconds=30.0)
    x = signals(5 * RATE)["vowel"]
    whole = np.zeros(30 * RATE, np.float32)
    whole[: len(x)] = x
    expected = transformers.WhisperFeatureExtractor()._np_extract_fbank_features(whole[None], "cpu")[0]
    ours = features(spec, x)
    assert ours.shape == (80, 3000)
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=0)


# -- against arithmetic


def test_a_tone_is_loudest_in_the_band_that_it_is_in():
    t = np.arange(RATE) / RATE
    places = [
        features(SPEC, np.sin(2 * np.pi * hertz * t).astype(np.float32)).mean(1).argmax()
        for hertz in (200, 800, 3000, 7000)
    ]
    assert places == sorted(places)
    assert len(set(places)) == 4
    ends = np.linspace(0, 15 + np.log(8) * 27 / np.log(6.4), 66)  # of the bands, in Slaney's mels
    assert ends[places[0]] < 3.0 < ends[places[0] + 2]  # 200 Hz are 3 mels
    assert ends[places[1]] < 12.0 < ends[places[1] + 2]


def test_loudness_moves_the_logarithm_and_nothing_else():
    x = signals(RATE)["noise"]
    np.testing.assert_allclose(features(SPEC, x * 0.1), features(SPEC, x) - 2 / 4, atol=1e-5)
    assert features(SPEC, np.zeros(RATE, np.float32)).tolist() == np.full((64, 100), -1.5).tolist()


# -- WAV files


def wav(x: np.ndarray, bits: int, rate: int = RATE, channels: int = 1) -> bytes:
    """As Python's own module writes it."""
    scaled = np.round(x.astype(np.float64) * (2 ** (bits - 1) - 1)).astype(np.int64)
    if bits == 8:
        raw = (scaled + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(value).to_bytes(bits // 8, "little", signed=True) for value in scaled.ravel())
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(bits // 8)
        file.setframerate(rate)
        file.writeframes(raw)
    return out.getvalue()


def riff(codec: int, bits: int, body: bytes, *, channels: int = 1, more: bytes = b"", size: int | None = None) -> bytes:
    rate = RATE
    form = struct.pack("<HHIIHH", codec, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits) + more
    chunks = b"LIST\3\0\0\0abc\0" + b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(body) if size is None else size) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


WAVE = np.linspace(-1, 1, 501).astype(np.float32)


@pytest.mark.parametrize(("bits", "step"), [(8, 2**-7), (16, 2**-15), (24, 2**-23), (32, 2**-23)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_are_as_they_were_written(bits, step, channels):
    several = np.stack([WAVE, *[WAVE[::-1] * 0.5] * (channels - 1)], axis=1)
    x, rate = read_wav(wav(several, bits, 8000, channels), "a.wav")
    assert (rate, x.dtype) == (8000, np.float32)
    np.testing.assert_allclose(x, several.mean(1), atol=1.5 * step)


def test_what_is_written_is_what_python_writes():
    assert write_wav(WAVE, 8000) == wav(WAVE, 16, 8000)


@pytest.mark.parametrize("bits", [32, 64])
def test_floats_are_read(bits):
    body = WAVE.astype(f"<f{bits // 8}").tobytes()
    for data in (riff(3, bits, body), riff(3, bits, body, size=0xFFFFFFFF), riff(3, bits, body, size=0)):
        np.testing.assert_array_equal(read_wav(data, "a.wav")[0], WAVE)


def test_an_extensible_format_says_its_codec_later():
    more = struct.pack("<HHIH", 22, 16, 0, 1) + b"\0" * 14
    body = (WAVE * 32767).astype("<i2").tobytes()
    np.testing.assert_allclose(read_wav(riff(0xFFFE, 16, body, more=more), "a.wav")[0], WAVE, atol=1e-4)


BODY = (WAVE * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a WAV file"),
        (b"OggS" + b"\0" * 60, "not a WAV file"),
        (riff(1, 16, BODY)[:-10], "ends 10 bytes too early"),
        (riff(1, 16, BODY)[:36], "too early"),
        (riff(1, 16, b""), "no samples"),
        (riff(1, 16, b"\0"), "no samples"),
        (riff(6, 8, BODY), "it is A-law"),
        (riff(85, 16, BODY), "it is MP3"),
        (riff(999, 16, BODY), "codec 999"),
        (riff(1, 12, BODY), "12 bits"),
        (riff(3, 16, BODY), "16 bits"),
        (riff(1, 16, BODY, channels=0), "0 channels"),
        (riff(3, 32, np.float32([0, np.nan]).tobytes()), "not finite"),
        (riff(0xFFFE, 16, BODY), "format is too short"),
        (b"RIFF\0\0\0\0WAVEdata\4\0\0\0abcd", "before their format"),
        (b"RIFF\0\0\0\0WAVEfmt \4\0\0\0abcd", "format is too short"),
        (b"RIFF\0\0\0\0WAVE", "no samples"),
    ],
)
def test_what_is_no_sound_is_named(data, says, refused):
    with refused(DataError, "cannot read the sound of these bytes", says):
        LogMel(SPEC)([data])


@given(st.binary(max_size=80), st.integers(0, 60))
def test_bytes_of_any_kind_are_read_or_refused(noise, place):
    data = riff(1, 16, BODY[:40])
    damaged = data[:place] + noise + data[place + len(noise) :]
    try:
        x, rate = read_wav(damaged, "a.wav")
    except DataError:
        return
    assert x.ndim == 1
    assert len(x)
    assert rate > 0
    assert np.isfinite(x).all()


# -- samples


def test_a_sound_gives_one_array_whichever_way_it_came_in(tmp_path):
    x = signals(RATE)["vowel"]
    data = wav(x, 16)
    (tmp_path / "a.wav").write_bytes(data)
    reads = LogMel(SPEC)
    samples, _ = read_wav(data, "a.wav")
    integers = np.frombuffer(data[-2 * RATE :], "<i2")
    wanted = reads([samples])["input_features"]
    for way in (tmp_path / "a.wav", str(tmp_path / "a.wav"), data, samples, integers, [data], samples[None]):
        assert np.array_equal(reads.batch(way)["input_features"], wanted)
    assert reads.batch([data, samples])["input_features"].shape == (2, 64, 100)
    assert reads.batch(wanted)["input_features"] is wanted
    assert np.array_equal(reads([wanted[0]])["input_features"], wanted)


def test_longer_sound_is_cut_and_counted():
    long, short = signals(RATE + 1)["noise"], signals(RATE)["noise"]
    reads = LogMel(SPEC)
    assert reads.truncated([long, short, wav(long, 16)]) == 2
    assert np.array_equal(reads([long])["input_features"], reads([long[:RATE]])["input_features"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (np.zeros(0, np.float32), "(0,)"),
        (np.zeros((1, 2, 3, 4), np.float32), "an array of float32"),
        (np.full(5, np.nan, np.float32), "not finite"),
        (np.zeros(5, np.int32), "int32"),
        (np.zeros((1, 64, 99), np.float32), "(1, 64, 99)"),
        ("gone.wav", "there is no sound gone.wav"),
        (7, "int"),
        ([7], "int"),
        ([], "empty"),
    ],
)
def test_what_cannot_be_read_is_named(given, says, refused):
    with refused(DataError, says):
        LogMel(SPEC).batch(given)


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"rate": 0}, "rate cannot be 0"), ({"mels": 0}, "mels"), ({"hop": 0}, "hop"), ({"seconds": 0.01}, "seconds"),
     ({"std": 0.0}, "std")],
)  # fmt: skip
def test_a_config_that_cannot_be_is_refused(changes, says, refused):
    with refused(RecipeError, says):
        LogMelSpec(**changes)


# -- resampling


RATES = [(44100, 16000), (48000, 16000), (22050, 16000), (8000, 16000), (11025, 16000), (16000, 22050)]


@pytest.mark.parametrize(("rate", "wanted"), RATES)
def test_a_tone_that_both_rates_hold_stays_that_tone(rate, wanted):
    for hertz in (100.0, 1000.0, 3400.0):
        x = np.sin(2 * np.pi * hertz * np.arange(rate // 4) / rate).astype(np.float32)
        y = resampled(x, rate, wanted)
        assert len(y) == -(-len(x) * (wanted // gcd(rate, wanted)) // (rate // gcd(rate, wanted)))
        expected = np.sin(2 * np.pi * hertz * np.arange(len(y)) / wanted)
        inside = slice(len(y) // 5, -len(y) // 5)  # it begins and ends with silence
        np.testing.assert_allclose(y[inside], expected[inside], atol=1e-4)


def test_what_the_lower_rate_cannot_hold_is_taken_out():
    x = np.sin(2 * np.pi * 12000 * np.arange(44100) / 44100).astype(np.float32)
    assert np.abs(resampled(x, 44100, 16000)[800:-800]).max() < 1e-4


def test_a_constant_stays_and_the_same_rate_changes_nothing():
    ones = np.ones(2000, np.float32)
    np.testing.assert_allclose(resampled(ones, 44100, 16000)[200:-200], 1, atol=1e-6)
    assert resampled(ones, 8000, 8000) is ones


def test_it_agrees_with_scipy():
    signal = pytest.importorskip("scipy.signal")
    x = signal.lfilter(*signal.butter(6, 3000, fs=22050), np.random.default_rng(0).normal(size=22050)).astype(
        np.float32
    )
    theirs = signal.resample_poly(x.astype(np.float64), 320, 441, window=("kaiser", 14.77))
    np.testing.assert_allclose(resampled(x, 22050, 16000)[500:-500], theirs[500:-500], atol=2e-3)


def test_a_file_of_another_rate_is_resampled_or_refused(refused):
    x = signals(RATE)["vowel"]
    data = wav(resampled(x, RATE, 44100) * 0.5, 24, 44100)
    ours, expected = (LogMel(SPEC)([way])["input_features"] for way in (data, x * np.float32(0.5)))
    loud = expected > expected.max() - 0.8  # above it both filters pass nothing of the sound
    assert np.abs(ours - expected)[loud][:-1].mean() < 0.02
    with refused(DataError, "44100 samples a second", "16000"):
        LogMel(LogMelSpec(resample=False))([data])
