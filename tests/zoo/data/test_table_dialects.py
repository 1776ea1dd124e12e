"""How tables are written is found and said, and a row that cannot be read is named by its line, or left out."""

from __future__ import annotations

import csv
import io
import json

import pytest
from feeds import pairs
from hypothesis import given
from hypothesis import strategies as st
from told import Told

from pocketzoo.core.errors import DataError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.load_data import load_data, with_columns
from pocketzoo.zoo.data.table_dialects import DELIMITERS, Dialect, records, sniffed

ROWS = [(f"text {i}", "ab"[i % 2]) for i in range(8)]
USUAL = {".csv": ",", ".tsv": "\t"}


def written(rows, delimiter=",", quote='"', end="\n"):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quotechar=quote, lineterminator=end).writerows([("text", "label"), *rows])
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("suffix", USUAL)
def test_a_dialect_is_found_and_said(suffix, delimiter, end, encoding, tmp_path):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(written(ROWS, delimiter, end=end).encode(encoding))
    heard = Told()
    assert pairs(load_data(path, progress=heard)) == ROWS
    said = "\n".join(heard.said)
    assert ("between columns" in said) == (delimiter != USUAL[suffix])
    assert (encoding.upper() in said) == (encoding in ("utf-16", "utf-32"))


def test_single_quotes_around_cells_are_found_and_said(tmp_path):
    rows = [(f"text {i}, with a comma", "ab"[i % 2]) for i in range(4)]
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"'{text}','{label}'\n" for text, label in rows))
    heard = Told()
    assert pairs(load_data(path, progress=heard)) == rows
    assert "' around cells" in heard.said[0]


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "shift_jis", "cp437"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".txt"])
def test_an_encoding_is_named_or_an_error(encoding, suffix, tmp_path, refused):
    text = "caf\xe9" if encoding != "shift_jis" else "\u8868\u793a"
    rows = [(f"{text} {i}", "ab"[i % 2]) for i in range(6)]
    content = {
        ".csv": written(rows),
        ".jsonl": "".join(json.dumps({"text": t, "label": c}, ensure_ascii=False) + "\n" for t, c in rows),
        ".txt": "".join(f"{t}\n" for t, _ in rows),
    }[suffix]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content.encode(encoding))
    wanted = rows if suffix != ".txt" else [(t, "") for t, _ in rows]
    assert pairs(load_data(f"{path}?encoding={encoding}")) == wanted
    with refused(DataError, "line ", str(path), hint="?encoding="):
        load_data(path)


@pytest.mark.parametrize("encoding", ["klingon", "hex", "zlib", "a\0b", ""])
def test_an_encoding_that_is_none_is_named(encoding, tmp_path, refused):
    path = tmp_path / "a.csv"
    path.write_text(written(ROWS))
    if not encoding:
        assert pairs(load_data(f"{path}?encoding=")) == ROWS
        return
    with refused(DataError, repr(encoding), hint="cp1252"):
        load_data(f"{path}?encoding={encoding}")


def test_columns_and_encoding_are_named_together(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(written(ROWS, ":").replace("text:label", "caf\xe9:stars").encode("cp1252"))
    reference = with_columns(f"{path}?encoding=cp1252&delimiter=:", "caf\xe9", "stars")
    assert pairs(load_data(reference)) == ROWS


# A row among good ones -> what is said of it.
BAD = {
    "too many": (b"fine, but long,a", "has 3 cells for 2 columns"),
    "too many, the last empty": (b"x,a,", "has 3 cells for 2 columns"),
    "too few": (b"only a text", "has 1 cells for 2 columns"),
    "stray quote": (b'"Great" film,a', "has a stray quote"),
    "quote that swallows": (b'"open,a', "quote"),
    "not UTF-8": (b"caf\xe9,a", "is not UTF-8: it has the byte 0xe9"),
    "zero byte": (b"a\0b,a", "has a zero byte"),
    "no text": (b",a", "lacks its text"),
    "blank text": (b"  ,a", "lacks its text"),
    "no label": (b"x,", "lacks its label"),
    "blank label": (b"x,  ", "lacks its label"),
    "NaN label": (b"x,nan", "lacks its label"),
    "NaN label, as pandas writes it": (b"x, NaN ", "lacks its label"),
}
GOOD = written(ROWS).encode()


@pytest.mark.parametrize("place", [2, 5, 10])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_by_its_line_or_left_out(name, place, tmp_path, refused):
    line, what = BAD[name]
    lines = GOOD.splitlines(keepends=True)
    lines.insert(place - 1, line + b"\n")
    path = tmp_path / "a.csv"
    path.write_bytes(b"".join(lines))
    with refused(DataError, f"line {place} of {path} ", what, hint="--skip-bad"):
        load_data(path)
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == ROWS
    assert skipped.names == {f"line {place} of {path}"}


BAD_OBJECTS = {
    '{"text": "x"': "is not a row",
    "[1]": "it is not an object",
    '{"text": "x", "text": "y", "label": "a"}': "'text' appears twice",
    '{"text": "x", "label": NaN}': "lacks its label",
    '{"text": "x", "label": null}': "lacks its label",
    '{"text": "x", "label": " "}': "lacks its label",
    '{"text": "x", "label": ["a", "b"]}': "several values in label",
    '{"text": "x", "label": {"a": 1}}': "several values in label",
    '{"text": "x"}': "lacks its label",
    '{"text": 3, "label": "a"}': "lacks its text",
}


@pytest.mark.parametrize("line", BAD_OBJECTS)
def test_a_bad_line_of_json_is_named_or_left_out(line, tmp_path, refused):
    good = [json.dumps({"text": text, "label": label}) for text, label in ROWS]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*good[:3], line, *good[3:]]))
    with refused(DataError, f"line 4 of {path} ", BAD_OBJECTS[line], hint="--skip-bad"):
        load_data(path)
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == ROWS
    assert skipped.names == {f"line 4 of {path}"}


@pytest.mark.parametrize("value", [float("nan"), None, "nan", " "])
def test_a_row_of_parquet_without_a_label_is_named_or_left_out(value, tmp_path, refused):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    labels = [value if i == 2 else float(i % 2) if isinstance(value, float) else "ab"[i % 2] for i in range(8)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [text for text, _ in ROWS], "label": labels}), path)
    with refused(DataError, f"row 3 of {path} lacks its label", hint="--skip-bad"):
        load_data(path)
    skipped = Skipped()
    assert len(pairs(load_data(path, skipped=skipped))) == 7
    assert skipped.names == {f"row 3 of {path}"}


@pytest.mark.parametrize("value", ["", "nan", "inf", "many"])
def test_a_target_that_is_no_number_is_named_or_left_out(value, tmp_path, refused):
    path = tmp_path / "a.csv"
    path.write_text("x,target\n" + "1,2.5\n" * 3 + f"4,{value}\n" + "5,6\n" * 3)
    with refused(DataError, f"line 5 of {path} ", hint="--skip-bad"):
        load_data(path, targets="numbers")
    skipped = Skipped()
    data = load_data(path, targets="numbers", skipped=skipped)
    assert sum(len(data.split(name)) for name in SPLITS) == 6
    assert skipped.names == {f"line 5 of {path}"}


def test_a_quote_that_swallowed_rows_loses_none_of_them(tmp_path):
    """The quote that opens in line 2 closes in line 5: all between are rows of their own."""
    path = tmp_path / "a.csv"
    path.write_text('text,label\n"open,a\none,b\ntwo,a\nclose",b\n' + "".join(f"{t},{c}\n" for t, c in ROWS))
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == sorted([*ROWS, ("one", "b"), ("two", "a")])
    assert skipped.names == {f"line {i} of {path}" for i in (2, 5)}


def test_a_line_lost_in_a_cell_loses_the_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'text,label\n"a\n\xe9\nb",x\nc,y\n')
    skipped = Skipped()
    assert pairs(load_data(path, skipped=skipped)) == [("c", "y")]
    assert skipped.names == {f"line {i} of {path}" for i in (2, 3)}


def test_a_header_that_cannot_be_read_is_an_error_in_any_case(tmp_path, refused):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,lab\xe9l\na,b\nc,d\n")
    with refused(DataError, f"line 1 of {path} is not UTF-8"):
        load_data(path, skipped=Skipped())


def test_a_text_of_several_lines_is_one(tmp_path):
    rows = [*ROWS, ("Hello, all\nbye", "a"), ("two\nlines, with\ncommas, x", "b"), ("a 5\" screen, it's\n\nbig", "a")]
    path = tmp_path / "a.csv"
    path.write_text(written(rows))
    assert pairs(load_data(path)) == sorted(rows)


def test_a_long_text_is_read_whole(tmp_path):
    rows = [("x" * 300_000, "a"), *ROWS]
    (tmp_path / "a.csv").write_text(written(rows))
    assert pairs(load_data(tmp_path / "a.csv")) == sorted(rows)


def test_labels_and_names_have_no_blanks_around_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,  label \nx, a\ny,a \nz,\tb\n")
    assert load_data(path).labels == ("a", "b")
    path.write_text('text, label\n"x, y", a\nz, "b, c"\n')
    assert pairs(load_data(path)) == [("x, y", "a"), ("z", "b, c")]


@pytest.mark.parametrize(("labels", "wanted"), [([1, 0, 1.0, 0.0, "1"], ("0", "1")), ([0.5, 1.5], ("0.5", "1.5"))])
def test_equal_numbers_are_one_label(labels, wanted, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": label}) + "\n" for i, label in enumerate(labels)))
    assert load_data(path).labels == wanted


def test_labels_that_are_true_and_also_one_are_refused(tmp_path, refused):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": true}\n{"text": "c", "label": false}\n{"text": "b", "label": 1}\n')
    with refused(DataError, f"line 3 of {path} has the label 1, no true or false, as others are"):
        load_data(path)


def test_lists_of_labels_are_flags(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [["a", "b"], ["a"], ["b"], [], ["b", "a"]]
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": row}) + "\n" for i, row in enumerate(rows)))
    data = load_data(path, targets="flags")
    assert data.labels == ("a", "b")
    flags = {s: t.tolist() for n in SPLITS for s, t in zip(data.split(n).samples, data.split(n).targets, strict=True)}
    assert flags == {f"t{i}": [int("a" in row), int("b" in row)] for i, row in enumerate(rows)}


def test_two_delimiters_that_are_as_likely_are_refused(tmp_path, refused):
    path = tmp_path / "a.csv"
    path.write_text("text;a|label\nx;y|z\n")
    with refused(DataError, "semicolons or |", hint="?delimiter="):
        load_data(path)
    with refused(DataError, "'::'"):
        load_data(f"{path}?delimiter=::")


@given(
    st.lists(st.tuples(st.text(max_size=8), st.sampled_from("ab")), min_size=1, max_size=20),
    st.sampled_from(DELIMITERS),
)
def test_records_are_those_of_the_library_where_it_wrote_them(rows, delimiter):
    rows = [(text.replace("\0", ""), label) for text, label in rows]
    text = written(rows, delimiter)
    lines = list(enumerate(io.StringIO(text, newline=""), start=1))
    found = [tuple(record.cells) for record in records(lines, Dialect(delimiter)) if record.cells]
    assert found == [("text", "label"), *rows]


def test_a_table_of_one_column_keeps_its_usual_delimiter():
    lines = [(1, "text\n"), (2, "a; b\n"), (3, "c | d\n")]
    assert sniffed(lines, ",", "t") == Dialect(",")


@pytest.mark.parametrize("wrong", ["inf", "1_000", "5%", "1e39", "1,234", "many"])
@pytest.mark.parametrize("line", [2, 5])
def test_a_cell_that_is_no_number_is_its_rows_fault_wherever_it_stands(wrong, line, tmp_path, refused):
    rows = [f"{i};x{i % 2}" for i in range(20)]
    rows[line - 2] = f"{wrong};x0"
    path = tmp_path / "a.csv"
    path.write_text("a;label\n" + "\n".join(rows))
    with refused(DataError, f"line {line} of {path} has no number in a: {wrong!r}"):
        load_data(path)
    skipped = Skipped()
    data = load_data(path, skipped=skipped)
    assert data.skipped == (f"line {line} of {path}",)
    kept = sorted(float(row[0]) for name in SPLITS for row in data.split(name).samples)
    assert kept == [i for i in range(20) if i != line - 2]


@pytest.mark.parametrize("header", ["1.5,2,3", "5,6,7", "1,1,2", "-1,0,1"])
def test_a_row_in_place_of_the_header_is_no_names(header, tmp_path, refused):
    (tmp_path / "a.csv").write_text(f"\n{header}\n" + "1,2,3\n" * 9)
    with refused(DataError, f"line 2 of {tmp_path / 'a.csv'} has numbers, and no names of columns"):
        load_data(tmp_path / "a.csv")


@pytest.mark.parametrize("header", ["0,1,2", "1,2,3", "a,1,2"])
def test_numbers_in_order_are_names(header, tmp_path):
    (tmp_path / "a.csv").write_text(f"{header}\n" + "1,2,3\n" * 9)
    assert load_data(tmp_path / "a.csv").columns == tuple(header.split(","))


def test_columns_without_names_are_no_numbers_of_a_sample(tmp_path, refused):
    (tmp_path / "a.csv").write_text(",a,label\n" + "".join(f"{i},{i % 3},x{i % 2}\n" for i in range(9)))
    with refused(DataError, "a column of numbers without a name", hint="index=False"):
        load_data(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(",text,label\n" + "".join(f"{i},t{i % 3},x{i % 2}\n" for i in range(9)))
    assert load_data(tmp_path / "a.csv").read.text == "text"
    (tmp_path / "a.csv").write_text(",,label\n" + "1,2,x\n" * 9)
    with refused(DataError, "two columns called ''"):
        load_data(tmp_path / "a.csv")


@pytest.mark.parametrize("stated", ["sep=;", '"sep=;"', "sep=;\r"])
def test_a_line_that_names_the_delimiter_is_no_header(stated, tmp_path):
    (tmp_path / "a.csv").write_text(f"{stated}\ntext;label\n" + "a, b, c;x\nd, e, f;y\n" * 5, newline="")
    data = load_data(tmp_path / "a.csv")
    assert data.labels == ("x", "y")
    assert {sample for name in SPLITS for sample in data.split(name).samples} == {"a, b, c", "d, e, f"}
