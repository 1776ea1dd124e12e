"""The collector rests while it is told to, and is afterwards as it was."""

from __future__ import annotations

import gc

import pytest

from pocketzoo.zoo.backends.tensorrt.garbage_collector import uncollected


@pytest.fixture(autouse=True)
def as_it_was():
    yield
    gc.enable()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_nothing_is_collected_meanwhile(enabled, fails):
    (gc.enable if enabled else gc.disable)()
    seen = []

    @uncollected()
    def work() -> int:
        seen.append(gc.isenabled())
        if fails:
            raise ValueError("broken")
        return 3

    if fails:
        with pytest.raises(ValueError, match="broken"):
            work()
    else:
        assert work() == 3
    assert seen == [False]
    assert gc.isenabled() == enabled
