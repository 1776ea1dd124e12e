from __future__ import annotations

import numpy as np
import pytest
from feeds import only
from foreignimages import FOREIGN
from PIL import Image

import pocketzoo
from pocketzoo.core.errors import DataError, UnknownNameError
from pocketzoo.workflows.predict import predict
from pocketzoo.zoo.backends.onnxruntime.runner import OnnxRunner
from pocketzoo.zoo.data.load_data import load_data
from pocketzoo.zoo.data.processors.image_preprocessing import prepare


@pytest.mark.parametrize("target", ["cpu", "tensorrt-rtx", "tensorrt"])
def test_probabilities_are_the_softmax_of_the_graph(target, compressed, digit_files):
    found = predict(compressed.path, digit_files, top=10, target=target)
    with OnnxRunner(compressed.graph(target)) as runner:
        for file, prediction in zip(digit_files, found, strict=True):
            logits = only(runner, prepare(file, compressed.manifest.input)[None])[0].astype(np.float64)
            shares = np.exp(logits) / np.exp(logits).sum()
            assert dict(prediction.top) == {str(i): pytest.approx(shares[i], rel=1e-6) for i in range(10)}


def test_all_classes_together_are_one_and_the_best_comes_first(fitted, digit_files):
    for prediction in predict(fitted.path, digit_files, top=10):
        shares = [p for _, p in prediction.top]
        assert sum(shares) == pytest.approx(1.0, abs=1e-9)
        assert shares == sorted(shares, reverse=True)
        assert len({label for label, _ in prediction.top}) == 10
        assert all(0 <= p <= 1 for p in shares)


@pytest.mark.parametrize("top", [1, 3, 5, 10, 99])
def test_the_top_is_as_long_as_asked_for(top, fitted, digit_files):
    whole = predict(fitted.path, digit_files[:3], top=10)
    for short, full in zip(predict(fitted.path, digit_files[:3], top=top), whole, strict=True):
        assert short.top == full.top[:top]
        assert short.file == full.file


@pytest.mark.parametrize("name", ["", "notes.txt"])
def test_what_is_no_image_is_not_told_to_be_skipped(name, fitted, tmp_path, refused):
    """There is no --skip-bad to predict: it gives an answer for each file or none."""
    (tmp_path / "notes.txt").write_text("no image")
    with refused(DataError, "is a folder" if not name else "cannot read") as caught:
        predict(fitted.path, [tmp_path / name])
    assert "--skip-bad" not in caught.value.hint


def test_five_is_the_default(fitted, digit_files):
    assert len(predict(fitted.path, digit_files[:1])[0].top) == 5


def test_most_answers_are_right(fitted, digit_files):
    wanted = load_data("digits").split("test").targets[:10]
    found = [int(p.top[0][0]) for p in predict(fitted.path, digit_files)]
    assert np.mean(np.array(found) == wanted) >= 0.9


def test_files_come_back_in_the_order_they_were_given(fitted, digit_files):
    mixed = [digit_files[i] for i in (3, 0, 3, 7)]
    found = predict(fitted.path, [str(m) for m in mixed])
    assert [p.file for p in found] == [str(m) for m in mixed]
    assert found[0] == found[2]
    assert pocketzoo.predict(fitted.path, mixed) == found


def test_each_image_is_classified_alone(fitted, digit_files):
    together = predict(fitted.path, digit_files)
    assert [predict(fitted.path, [f])[0] for f in digit_files] == together


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(8, 8), (200, 50), (1, 1), (28, 28)])
def test_images_of_any_mode_and_size_are_read(mode, size, fitted, tmp_path):
    file = tmp_path / "image.png"
    Image.new(mode, size).save(file)
    assert len(predict(fitted.path, [file])[0].top) == 5


def test_a_registered_model_knows_its_classes(digit_files):
    found = predict("tinynet", digit_files[:1], top=10)
    assert {label for label, _ in found[0].top} >= {"t-shirt", "sneaker", "bag"}


def test_a_missing_file_is_refused_by_name(fitted, digit_files, tmp_path, refused):
    with refused(DataError, f"there is no image {tmp_path / 'gone.png'}", hint="path"):
        predict(fitted.path, [digit_files[0], tmp_path / "gone.png"])


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_a_file_that_is_no_image_is_refused_by_name(content, fitted, tmp_path, refused):
    file = tmp_path / "odd.png"
    file.write_bytes(content)
    with refused(DataError, f"cannot read the image {file}"):
        predict(fitted.path, [file])


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_an_image_of_another_format_is_refused_and_no_program_starts(kind, fitted, tmp_path, run, ghostscript):
    file = tmp_path / "x.png"
    file.write_bytes(FOREIGN[kind]())
    found = run("predict", fitted.path, file)
    assert (found.exit_code, found.stdout) == (1, "")
    what, next_step = found.stderr.splitlines()
    assert what == f"error: cannot read the image {file}: it is not a PNG, JPEG or WebP file"
    assert next_step == "hint:  give PNG, JPEG or WebP files"
    assert not ghostscript.exists()


def test_a_folder_is_no_image(fitted, tmp_path, refused):
    with refused(DataError, str(tmp_path)):
        predict(fitted.path, [tmp_path])


def test_nothing_to_predict_is_refused(fitted, refused):
    with refused(DataError, "no files are given"):
        predict(fitted.path, [])


@pytest.mark.parametrize("typo", ["cpuu", "tensorrt_rtx"])
def test_a_target_that_does_not_exist_is_refused(typo, compressed, digit_files, refused):
    with refused(UnknownNameError, f"{typo!r}"):
        predict(compressed.path, digit_files[:1], target=typo)
