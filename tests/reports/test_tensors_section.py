"""The table of inputs and outputs on the page."""

from __future__ import annotations

from pocketzoo.reports.measured.number_format import NOTHING
from pocketzoo.reports.tensors_section import FEW, tensors_table
from pocketzoo.zoo.bundles.bundle_tensors import Sqnr, TensorFacts


def tensor(role, name, axes=("batch", 3), graph="", **facts):
    return TensorFacts(
        **{"graph": graph, "role": role, "name": name, "dtype": "float32", "axes": axes, "batch": 0, **facts}
    )


def test_each_output_has_its_number_and_each_input_none():
    sqnr = (Sqnr(target="cpu", precision="int8", value=31.27, key="measurements.1.outputs.y"),)
    equal = (Sqnr(target="cpu", precision="int8", value=None, key="measurements.1.outputs.z"),)
    table = tensors_table(
        [
            tensor("input", "x"),
            tensor("output", "y", sqnr=sqnr),
            tensor("output", "z", sqnr=equal),
            tensor("output", "w"),
        ],
        "t",
        2,
    )
    assert (table["targets"], table["states"]) == (["cpu"], False)
    assert [group["title"] for group in table["groups"]] == ["inputs", "outputs"]
    cells = {row["name"]: str(row["sqnr"][0]) for group in table["groups"] for row in group["rows"]}
    assert cells["x"] == ""
    assert "31.3</span>" in cells["y"]
    assert 'data-bundle="2" data-key="measurements.1.outputs.y" data-value="31.27"' in cells["y"]
    assert (cells["z"], cells["w"]) == ("equal", str(NOTHING))
    assert "SQNR" in table["caption"]


def test_axes_states_and_graphs_in_words():
    tensors = [
        tensor("input", "x", ("t", "n", 3), batch=1, free=("t",)),
        tensor("input", "h", state="h_next"),
        tensor("output", "y", (), batch=None),
        tensor("output", "h_next", ("a + b", 3), batch=None, state="h", free=("a + b",), graph="decoder"),
    ]
    table = tensors_table(tensors, "t", 0)
    assert table["states"]
    assert "SQNR" not in table["caption"]
    rows = {row["name"]: row for group in table["groups"] for row in group["rows"]}
    assert rows["x"]["axes"] == 't &times; <span class="samples">n</span> &times; 3'
    assert (rows["x"]["batch"], rows["x"]["free"]) == ("axis 1", "t")
    assert (rows["h"]["state"], rows["h_next"]["state"], rows["x"]["state"]) == ("from h_next", "to h", NOTHING)
    assert (rows["y"]["axes"], rows["y"]["batch"]) == ("one number", NOTHING)
    assert rows["h_next"]["axes"] == "(a + b) &times; 3"
    assert [g["title"] for g in table["groups"]] == [
        "inputs of the model", "outputs of the model", "outputs of the graph decoder"
    ]  # fmt: skip


def test_a_name_is_text_and_many_are_counted():
    table = tensors_table(
        [tensor("input", "<b>", ("<i>", "<u>"))] + [tensor("output", f"y{i}") for i in range(40)], "t", 0
    )
    assert "<i>" not in table["groups"][0]["rows"][0]["axes"]
    assert (len(table["groups"][1]["rows"]), table["groups"][1]["more"]) == (FEW, 40 - FEW)
