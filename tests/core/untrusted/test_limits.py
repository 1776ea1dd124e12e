"""The table of limits: each can be raised by the variable that its error names, and is in the documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketzoo.core.errors import RecipeError, TooLargeError
from pocketzoo.core.untrusted.limits import LIMITS, NODES, check_layers
from pocketzoo.plugins.timm_settings import structure_of as of_timm
from pocketzoo.plugins.transformers.settings import structure_of as of_transformers

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_a_limit_holds_and_its_variable_moves_it(limit, monkeypatch, refused):
    monkeypatch.delenv(limit.variable, raising=False)
    limit.check(limit.default, "it")
    with refused(TooLargeError, "it has", f"more than {limit.default:,}", hint=limit.variable):
        limit.check(limit.default + 1, "it")
    monkeypatch.setenv(limit.variable, str(limit.default + 1))
    limit.check(limit.default + 1, "it")
    monkeypatch.setenv(limit.variable, "1")
    with refused(TooLargeError, "has 2 apples, more than 1"):
        limit.check(2, "it", "apples")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "1e9", "\u0661", "9" * 400])
def test_a_variable_that_is_no_number_is_refused(text, monkeypatch, refused):
    monkeypatch.setenv(NODES.variable, text)
    with refused(RecipeError, "POCKETZOO_MAX_NODES cannot be", hint="a whole number"):
        NODES.check(1, "it")


def test_a_number_with_thousands_of_digits_is_written_short(refused):
    with refused(TooLargeError, "has more than 10^15 nodes"):
        NODES.check(10**6000, "it")


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_the_documents_have_a_row_for_each(limit):
    rows = [line for line in (ROOT / "docs" / "zoo.md").read_text("utf8").splitlines() if f"`{limit.variable}`" in line]
    assert len(rows) == 1
    assert limit.what in rows[0]
    assert f"{limit.default:,}" in rows[0]


@pytest.mark.parametrize("value", [10**9, 10**400, [10**9], [3, 998], 1001, [[1001]]])
@pytest.mark.parametrize("name", ["num_hidden_layers", "depths"])
def test_a_config_of_more_layers_than_anyone_has(name, value, refused):
    with refused(TooLargeError, f"layers by {name!r}", hint="POCKETZOO_MAX_LAYERS"):
        check_layers({name: value}, ["num_hidden_layers", "depths"], "its config.json")
    check_layers({name: 1000, "else": value}, ["num_hidden_layers", "depths"], "its config.json")


def test_each_loader_asks(refused):
    config = {"model_type": "bert", "num_hidden_layers": 10**9}
    with refused(TooLargeError, "1,000,000,000 layers by 'num_hidden_layers'", hint="POCKETZOO_MAX_LAYERS"):
        of_transformers(config)
    with refused(TooLargeError, "1,000,000,000 layers by 'layers'", hint="POCKETZOO_MAX_LAYERS"):
        read = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
        of_timm({"architecture": "resnet10t", "pretrained_cfg": read, "model_args": {"layers": [10**9]}})
