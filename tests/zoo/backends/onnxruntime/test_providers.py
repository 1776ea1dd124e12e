from __future__ import annotations

import onnxruntime
import pytest

from pocketzoo.core.errors import DataError, MissingDependencyError
from pocketzoo.zoo.backends.onnxruntime.providers import (
    CPU,
    PROVIDERS,
    available,
    installed_providers,
    package_of,
    provider_name,
)


def test_what_is_here_is_what_onnxruntime_says():
    assert available() == onnxruntime.get_available_providers()
    assert {PROVIDERS[short][0] for short in installed_providers()} <= set(available())
    assert "cpu" in installed_providers()


def test_short_and_long_names_mean_the_same():
    assert provider_name("cpu") == provider_name(CPU) == CPU


@pytest.mark.parametrize("short", sorted(set(PROVIDERS) - {"cpu"}))
def test_one_that_is_missing_is_named_with_its_package(short, refused):
    if short in installed_providers():
        pytest.skip(f"this onnxruntime has {short}")
    full, package = PROVIDERS[short]
    for name in (short, full):
        with refused(MissingDependencyError, full, hint=f"pip install {package}; without it runs: cpu"):
            provider_name(name)
    assert package_of(full) == package


def test_one_that_does_not_exist_is_refused_with_the_nearest(refused):
    with refused(DataError, "'cuba'", hint="cuda"):
        provider_name("cuba")
    assert package_of("cuba") == ""
