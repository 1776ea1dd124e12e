"""Errors of predict on a device, as its user sees them: two lines and exit 1."""

from __future__ import annotations

import pytest


def two_lines(done) -> list[str]:
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert done.stdout == ""
    return lines


@pytest.mark.parametrize("name", ["model.onnx", "README.md", "model.safetensors"])
def test_predict_refuses_a_bundle_whose_digest_is_off(name, run, fitted_copy, digit):
    file = fitted_copy.path / name
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    error, _ = two_lines(run("predict", fitted_copy.path, digit))
    assert name in error
    assert "sha256 differs" in error


@pytest.mark.parametrize("provider", ["cuda", "openvino", "tensorrt"])
def test_predict_names_what_a_provider_takes(provider, run, fitted, digit):
    from pocketzoo.zoo.backends.onnxruntime.providers import installed_providers

    if provider in installed_providers():
        pytest.skip(f"{provider} is here")
    _, hint = two_lines(run("predict", fitted.path, digit, "--provider", provider))
    assert "pip install onnxruntime-" in hint
    assert "without it runs: cpu" in hint


@pytest.mark.parametrize("provider", ["gpu", "engine"])
def test_predict_with_a_provider_that_cannot_be(provider, run, fitted, digit):
    two_lines(run("predict", fitted.path, digit, "--provider", provider))


def test_predict_of_what_is_no_image(run, fitted, tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG no more")
    error, _ = two_lines(run("predict", fitted.path, tmp_path / "x.png"))
    assert "x.png" in error
