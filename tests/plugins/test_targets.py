from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["cpu", "tensorrt", "tensorrt-rtx"])
def test_the_encoding_of_a_target(registry, name):
    target = registry.get("target", name)
    nvidia = name != "cpu"
    assert target.int8.activations == ("int8" if nvidia else "uint8")
    assert target.int8.symmetric == nvidia
    assert target.int8.int32_bias != nvidia, "NVIDIA's parsers refuse an int32 DequantizeLinear"
    assert target.int8.fuses_add == nvidia
    assert target.channel_multiple == (16 if nvidia else 8)
    assert target.engine == {"cpu": "", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}[name]
