from __future__ import annotations

from pocketzoo.reports.measured.layer_costs import Layer, Pair, costliest, match
from pocketzoo.reports.measured.number_format import Number


def layer(name: str, cost: int = 1) -> Layer:
    number = Number(cost, name, 0)
    return Layer(name, "Conv", "float32", parameters=number, nonzero=number, bytes=number, macs=number)


def names(pairs: list[Pair]) -> list[tuple[str, list[str], list[str]]]:
    return [(pair.name, [x.name for x in pair.before], [x.name for x in pair.after]) for pair in pairs]


def test_layers_match_by_name_and_factors_by_what_they_were() -> None:
    before = [layer("stem.0"), layer("block.conv1"), layer("block.conv"), layer("head")]
    after = [layer("stem.0"), layer("block.conv1.0"), layer("block.conv1.1"), layer("extra.0")]
    assert names(match(before, after)) == [
        ("stem.0", ["stem.0"], ["stem.0"]),
        ("block.conv1", ["block.conv1"], ["block.conv1.0", "block.conv1.1"]),
        ("block.conv", ["block.conv"], []),
        ("head", ["head"], []),
        ("extra.0", [], ["extra.0"]),
    ]


def test_a_weight_that_is_used_twice_is_two_layers() -> None:
    pairs = match([layer("tied"), layer("tied")], [layer("tied"), layer("tied")])
    assert names(pairs) == [("tied", ["tied"], ["tied"])] * 2


def test_the_costliest_layers_are_kept_in_order() -> None:
    pairs = match([layer(f"l{i}", cost) for i, cost in enumerate([5, 1, 9, 2, 7, 3])], [])
    kept, others = costliest(pairs, 3)
    assert [pair.name for pair in kept] == ["l0", "l2", "l4"]
    assert [pair.name for pair in others] == ["l1", "l3", "l5"]
    assert costliest(pairs, 6) == (pairs, [])
