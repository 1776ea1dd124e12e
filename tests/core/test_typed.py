"""Dataclasses to JSON and back, over every class that is ever read from a file."""

from __future__ import annotations

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketzoo.compress.configs import Int8Config, LowRankConfig, PruneConfig
from pocketzoo.compress.plans import Axis, Factor, Int8Plan, LowRankPlan, PrunePlan, Range
from pocketzoo.core.errors import RecipeError
from pocketzoo.core.typed import from_plain, to_plain
from pocketzoo.measure.measure_graphs import Latency, Measurement
from pocketzoo.zoo.bundles.manifest import FileEntry, Manifest, ModelRef
from pocketzoo.zoo.bundles.step_record import Rejection, StepRecord
from pocketzoo.zoo.catalog.specs import (
    Cut,
    FeatureSpec,
    HubFile,
    InputSpec,
    Int8Encoding,
    PackageFile,
    TargetSpec,
    TextSpec,
)

CLASSES = [
    PruneConfig, LowRankConfig, Int8Config,
    PrunePlan, LowRankPlan, Int8Plan, Axis, Factor, Range,
    Manifest, ModelRef, StepRecord, Rejection, FileEntry, Measurement, Latency,
    InputSpec, TextSpec, FeatureSpec, Cut, PackageFile, HubFile, TargetSpec, Int8Encoding,
]  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
# Values a config accepts; all other fields take anything of their type.
IN_RANGE = {
    (PruneConfig, "ratio"): st.floats(0, 0.99),
    (PruneConfig, "multiple"): st.none() | st.integers(1, 64),
    (LowRankConfig, "multiple"): st.none() | st.integers(1, 64),
    (Int8Config, "percentile"): st.floats(50.01, 100),
    (Int8Config, "min_sqnr"): st.none() | st.floats(0.1, 100),
    (Int8Config, "max_drop"): st.none() | st.floats(0, 0.99),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values of an annotation, as the program makes them."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return JSON
    if dataclasses.is_dataclass(hint):
        if len(BEING_MADE) > 1 and all(_has_default(f) for f in dataclasses.fields(hint)):
            return st.just(hint())  # deep in a manifest: it is in CLASSES itself where it is read alone
        return instances(hint)
    if origin in (Union, types.UnionType):
        return st.one_of([st.none() if a is type(None) else values(a) for a in args])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        if args[-1] is Ellipsis and args[0] in BEING_MADE:
            return st.just(())
        if args[-1] is Ellipsis:
            return st.lists(values(args[0]), max_size=_most()).map(tuple)
        return st.tuples(*map(values, args))
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(values(args[0]), values(args[1]), max_size=_most())
    return {
        str: st.text(max_size=8),
        int: st.integers(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }[hint]


BUDGETS = ("macs", "parameters", "latency")
LOW_RANKS = ("parameters", "energy", "rank_fraction")


BEING_MADE: list[type] = []  # a rejection has the rejections before it, which have none here


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _most() -> int:
    """Items of a collection: what lies deep in a manifest would be too much of a draw."""
    return 3 if len(BEING_MADE) < 2 else 0


@cache
def _instances(kind: type, inside: tuple[type, ...]) -> st.SearchStrategy[Any]:
    hints = get_type_hints(kind)
    BEING_MADE.append(kind)
    fields = {f.name: IN_RANGE.get((kind, f.name), values(hints[f.name])) for f in dataclasses.fields(kind)}
    BEING_MADE.pop()
    if kind is LowRankConfig:  # one of the three
        one = st.tuples(st.sampled_from(LOW_RANKS), st.floats(0.01, 1))
        rest = {k: v for k, v in fields.items() if k not in LOW_RANKS}
        return st.builds(lambda one, more: kind(**{one[0]: one[1]}, **more), one, st.fixed_dictionaries(rest))
    if kind is PruneConfig:  # at most one budget, and that for channels; a pattern would need its granularity
        choices = st.sampled_from([{}, {"granularity": "weight"}])
        budget = st.tuples(st.sampled_from(BUDGETS), st.floats(0.01, 1)).map(lambda pair: dict([pair]))
        rest = {k: v for k, v in fields.items() if k not in (*BUDGETS, "granularity", "pattern")}
        return st.builds(lambda one, more: kind(**one, **more), choices | budget, st.fixed_dictionaries(rest))
    return st.builds(kind, **fields)


def instances(kind: type) -> st.SearchStrategy[Any]:
    return _instances(kind, tuple(BEING_MADE))


each = pytest.mark.parametrize("kind", CLASSES, ids=lambda c: c.__name__)


@each
@given(data=st.data())
def test_round_trip_through_json(kind, data):
    value = data.draw(instances(kind))
    again = from_plain(kind, json.loads(json.dumps(to_plain(value))))
    assert type(again) is kind
    assert again == value
    assert to_plain(again) == to_plain(value)


@each
@given(data=st.data())
def test_what_is_read_is_deeply_of_the_annotated_types(kind, data):
    """Lists of a file become tuples, so that what is read is frozen like what was written."""
    again = from_plain(kind, json.loads(json.dumps(to_plain(data.draw(instances(kind))))))
    for f in dataclasses.fields(kind):
        value, hint = getattr(again, f.name), get_type_hints(kind)[f.name]
        if get_origin(hint) is tuple:
            assert isinstance(value, tuple)
        if hint is float:
            assert isinstance(value, float)


@each
@given(data=st.data())
def test_an_unknown_field_is_named_with_its_class(kind, data):
    plain = to_plain(data.draw(instances(kind)))
    name = data.draw(st.text(min_size=1, max_size=12).filter(lambda n: n not in plain))
    with pytest.raises(RecipeError) as caught:
        from_plain(kind, {**plain, name: 1})
    assert f"no field of {kind.__name__} is called {name!r}" in caught.value.message
    assert caught.value.hint


@each
def test_a_misspelt_field_gets_the_nearest_one(kind):
    for f in (f for f in dataclasses.fields(kind) if not f.metadata.get("separate")):
        misspelt = f.name[:-1] + "_" + f.name[-1]
        with pytest.raises(RecipeError) as caught:
            from_plain(kind, {misspelt: 1})
        assert caught.value.message == f"no field of {kind.__name__} is called {misspelt!r}"
        assert caught.value.hint == f"did you mean {f.name!r}?"


@each
@given(data=st.data())
def test_a_missing_field_is_named_with_its_class(kind, data):
    plain = to_plain(data.draw(instances(kind)))
    for f in dataclasses.fields(kind):
        less = {k: v for k, v in plain.items() if k != f.name}
        if f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING:
            if kind is not LowRankConfig or f.name not in LOW_RANKS:
                from_plain(kind, less)  # it has a default
            continue
        with pytest.raises(RecipeError) as caught:
            from_plain(kind, less)
        assert f"{kind.__name__} needs a field {f.name!r}" in caught.value.message
        assert f.name in caught.value.hint


@each
@pytest.mark.parametrize("data", [None, 1, "text", [], [["ratio", 0.3]], True], ids=repr)
def test_what_is_no_table_is_refused(refused, kind, data):
    with refused(RecipeError, kind.__name__, "table", repr(data)):
        from_plain(kind, data)


def read_or_refuse(kind: type, data: dict) -> Any:
    try:
        return from_plain(kind, data)
    except RecipeError as error:
        return error


@each
@given(data=st.data())
def test_any_json_in_a_field_is_taken_or_refused_by_name(kind, data):
    """Never another exception: a manifest may come from anywhere."""
    plain = to_plain(data.draw(instances(kind)))
    name = data.draw(st.sampled_from([f.name for f in dataclasses.fields(kind)]))
    result = read_or_refuse(kind, {**plain, name: data.draw(JSON)})
    if isinstance(result, RecipeError):
        assert any(c.__name__ in result.message for c in CLASSES)
        assert result.hint
    else:
        assert from_plain(kind, json.loads(json.dumps(to_plain(result)))) == result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    flag: bool = False
    count: int = 1
    share: float = 0.5
    text: str = ""
    choice: Literal["a", "b"] = "a"
    pair: tuple[float, float] = (0.0, 1.0)
    many: tuple[int, ...] = ()
    maybe: int | None = None
    either: str | int = ""
    table: Mapping[str, int] = dataclasses.field(default_factory=dict)
    inner: Cut | FileEntry | None = None


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("flag", True, True),
        ("count", 3, 3),
        ("count", -(10**30), -(10**30)),
        ("share", 0.25, 0.25),
        ("share", 1, 1.0),
        ("share", math.inf, math.inf),
        ("text", "häh", "häh"),
        ("choice", "b", "b"),
        ("pair", [1, 2], (1.0, 2.0)),
        ("pair", (1, 2.5), (1.0, 2.5)),
        ("many", [], ()),
        ("many", [1, 2, 3], (1, 2, 3)),
        ("maybe", None, None),
        ("maybe", 7, 7),
        ("either", "x", "x"),
        ("either", 7, 7),
        ("table", {"a": 1}, {"a": 1}),
        ("inner", None, None),
        ("inner", {"sha256": "x", "size": 3}, FileEntry(sha256="x", size=3)),
        (
            "inner",
            {"layer": "stem", "features": {"kind": "vector", "shape": ["batch", 3]}},
            Cut("stem", FeatureSpec("vector", ("batch", 3))),
        ),
    ],
)
def test_what_each_type_takes(field, value, wanted):
    taken = getattr(from_plain(Sample, {field: value}), field)
    assert taken == wanted
    assert type(taken) is type(wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("flag", v) for v in (0, 1, "true", None, 0.0, [])],
        *[("count", v) for v in (True, False, 1.0, 1.5, "1", None, [], {})],
        *[("share", v) for v in (True, False, "0.5", None, [0.5], {})],
        *[("text", v) for v in (1, None, True, ["a"], b"a")],
        *[("choice", v) for v in ("c", "A", "", 1, None, True, ["a"], {"a": 1})],
        *[("pair", v) for v in ([1], [1, 2, 3], [], 1.0, "ab", [1, "2"], [True, 1], {"0": 1}, None)],
        *[("many", v) for v in (1, "12", [1.5], [True], ["1"], [None], {"a": 1}, None)],
        *[("maybe", v) for v in (True, "7", 7.0, [], {})],
        *[("either", v) for v in (True, None, 1.5, [])],
        *[("table", v) for v in ({"a": "1"}, {1: 1}, {"a": True}, [], "a", None)],
        *[("inner", v) for v in (1, "x", [], True)],
    ],
)
def test_what_each_type_refuses(refused, field, value):
    with refused(RecipeError, f"Sample.{field}", repr(value) if not isinstance(value, (list, dict)) else ""):
        from_plain(Sample, {field: value})


@pytest.mark.parametrize("field", ["share", "pair"])
def test_a_number_too_large_for_a_float_is_refused(refused, field):
    huge = 10**400
    with refused(RecipeError, f"Sample.{field}"):
        from_plain(Sample, {field: huge if field == "share" else [huge, 1]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"many": [1, 2, "x"]}, "Sample.many[2] must be int, not 'x'"),
        ({"pair": [0, None]}, "Sample.pair[1] must be float, not None"),
        ({"table": {"k": "v"}}, "Sample.table['k'] must be int, not 'v'"),
        ({"choice": "c"}, "Sample.choice cannot be 'c'"),
    ],
)
def test_the_message_says_where(refused, data, message):
    with refused(RecipeError, message):
        from_plain(Sample, data)


def test_the_message_of_a_nested_table_is_about_its_field(refused):
    with refused(RecipeError, "no field of FeatureSpec is called 'knd'", hint="did you mean 'kind'?"):
        from_plain(Cut, {"layer": "stem", "features": {"knd": "map", "shape": []}})


def test_a_choice_lists_what_there_is(refused):
    with refused(RecipeError, hint="one of: 'channel', 'weight'"):
        from_plain(PruneConfig, {"granularity": "chanel"})


@pytest.mark.parametrize(
    ("kind", "data", "field"),
    [
        *[(PruneConfig, {"ratio": v}, "ratio") for v in (-0.1, 1, 1.0, 5, -1, math.nan, math.inf)],
        *[(PruneConfig, {"multiple": v}, "multiple") for v in (0, -8)],
        *[(LowRankConfig, {"energy": v}, "energy") for v in (0, 0.0, -0.5, 1.01, math.nan)],
        *[(LowRankConfig, {"parameters": v}, "parameters") for v in (0, -1, 2)],
        *[(LowRankConfig, {"energy": 0.9, "multiple": v}, "multiple") for v in (0, -1)],
        *[(Int8Config, {"percentile": v}, "percentile") for v in (0, 50, 100.1, -1, math.nan)],
    ],
)
def test_a_config_refuses_what_cannot_work(refused, kind, data, field):
    with refused(RecipeError, f"{kind.__name__}.{field} cannot be", hint=field):
        from_plain(kind, data)


@pytest.mark.parametrize("data", [{}, {"energy": 0.9, "parameters": 0.5}])
def test_low_rank_takes_one_of_two(refused, data):
    with refused(RecipeError, "one of parameters, energy and rank_fraction", hint="parameters = 0.8"):
        from_plain(LowRankConfig, data)


@given(JSON)
def test_plain_data_stays_plain(value):
    assert to_plain(value) == value


def test_to_plain_copies_containers():
    inner = {"a": [1]}
    plain = to_plain(inner)
    plain["a"].append(2)
    assert inner == {"a": [1]}


def test_a_class_is_no_instance():
    assert to_plain(PruneConfig) is PruneConfig


@pytest.mark.parametrize("word", ["separate", "beside"])
def test_a_field_that_is_saved_apart_is_no_plain_data(word, refused):
    """The second word is that of the previous release."""

    @dataclasses.dataclass(frozen=True)
    class Plan:
        ratio: float
        tensors: dict[str, Any] = dataclasses.field(default_factory=dict, metadata={word: True})

    assert to_plain(Plan(0.5, {"w": object()})) == {"ratio": 0.5}
    assert from_plain(Plan, {"ratio": 0.5}) == Plan(0.5)
    with refused(RecipeError, "no field of Plan is called 'tensors'"):
        from_plain(Plan, {"ratio": 0.5, "tensors": {}})
