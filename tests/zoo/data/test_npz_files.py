"""Arrays of numpy as data sets: which are samples, which are targets, and what is said of others."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest

from pocketzoo.core.errors import DataError, TooLargeError
from pocketzoo.zoo.catalog.dataset import SPLITS
from pocketzoo.zoo.catalog.signature import TensorSpec
from pocketzoo.zoo.data.batches import Skipped
from pocketzoo.zoo.data.npz_files import array_files, npz_samples, read_npz
from pocketzoo.zoo.data.target_kinds import as_numbers


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def whole(data, what: str) -> np.ndarray:
    return np.concatenate([getattr(data.split(name), what) for name in SPLITS])


FLOATS, TEN = np.arange(20, dtype=np.float64).reshape(10, 2), np.arange(10)


@pytest.mark.parametrize(
    ("arrays", "message", "hint"),
    [
        ({}, "{path} has no array 'x'", "it has: nothing"),
        ({"a": TEN, "b": TEN}, "{path} has no array 'x'", "it has: a, b"),
        ({"x": TEN}, "{path}: x is int64 of shape (10,)", "give numbers, one sample per row"),
        ({"x": np.zeros((0, 3))}, "{path}: x is float64 of shape (0, 3)", "give numbers, one sample per row"),
        ({"x": np.array([["a"]])}, "{path}: x is <U1 of shape (1, 1)", "give numbers, one sample per row"),
        ({"x": np.array([[1j]])}, "{path}: x is complex128 of shape (1, 1)", "give numbers, one sample per row"),
        ({"x": np.full((10, 2), np.nan)}, "{path}: x has non-finite values", "remove samples with NaN or infinity"),
        ({"x": FLOATS, "y": FLOATS}, "{path}: y is float64 of shape (10, 2)", "give one label or number per sample"),
        ({"x": FLOATS, "y": np.ones(10, complex)}, "{path}: y is complex128 of shape (10,)", "texts or numbers"),
        ({"x": FLOATS, "y": np.array(3)}, "{path}: y is int64 of shape ()", "give labels as texts or numbers"),
        ({"x": FLOATS, "y": np.zeros(10, [("a", int)])}, "{path}: y is [('a', '<i8')] of shape (10,)", "give labels"),
        ({"x": FLOATS, "y": np.full(10, np.inf)}, "{path}: y is float64 of shape (10,)", "give one label or number"),
        ({"x": FLOATS, "y": TEN[:9]}, "{path}: x has 10 samples, y has 9", "give one y per x"),
        ({"x": FLOATS, "y": np.arange(11)}, "{path}: x has 10 samples, y has 11", "give one y per x"),
    ],
)
def test_what_is_no_data_is_refused(arrays, message, hint, tmp_path, refused):
    path = save(tmp_path / "a.npz", **arrays)
    with refused(DataError, hint=hint) as caught:
        read_npz(path, 0)
    assert caught.value.message == message.format(path=path)


BAD_LABELS = [
    (np.array([*"ababab", "", *"aba"]), "classes", "has no label: ''"),
    (np.array([*"ababab", "  ", *"aba"]), "classes", "has no label: ''"),
    (np.array([*"ababab", "NaN", *"aba"]), "classes", "has no label: 'NaN'"),
    (np.array([b"a", b"b"] * 3 + [b"\xe9", b"a", b"b", b"a"]), "classes", "has a label that is not UTF-8: b'\\xe9'"),
    (np.where(np.arange(10) == 6, np.nan, 1.0), "classes", "has no label: nan"),
    (np.where(np.arange(10) == 6, np.nan, 1.0), "numbers", "has no label: nan"),
    (np.array(["1.5", "2"] * 3 + ["1,5", "2", "3", "4"]), "numbers", "has no number in y: '1,5'"),
    (np.array(["1.5", "2"] * 3 + ["inf", "2", "3", "4"]), "numbers", "has no number in y: 'inf'"),
]


@pytest.mark.parametrize(("y", "kind", "what"), BAD_LABELS)
@pytest.mark.parametrize("named", [False, True])
def test_a_row_without_a_label_is_named_or_skipped(named, y, kind, what, tmp_path, refused):
    x = {"a": FLOATS, "b": FLOATS} if named else {"x": FLOATS}
    path = save(tmp_path / "a.npz", **x, y=y)
    with refused(DataError, f"row 7 of {path} {what}", hint="--skip-bad"):
        read_npz(path, 0, kind, names=[("a", "b")])
    skipped = Skipped()
    data = read_npz(path, 0, kind, names=[("a", "b")], skipped=skipped)
    assert skipped.names == {f"row 7 of {path}"}
    rows = {float(s["a"][0] if named else s[0]) for name in SPLITS for s in data.split(name).samples}
    assert rows == {float(2 * i) for i in range(10) if i != 6}
    if named:
        for split in map(data.split, SPLITS):
            for i, sample in enumerate(split.samples):
                assert split.called(i) == f"row {int(sample['a'][0]) // 2 + 1} of {path}"


def test_labels_are_texts_without_blanks(tmp_path):
    y = np.array([" a", "b ", "a", "b", "\u00e9"] * 2)
    encoded = np.array([text.encode() for text in y.tolist()])
    for kind in (y, encoded):
        data = read_npz(save(tmp_path / "a.npz", x=FLOATS, y=kind), 0)
        assert data.labels == ("a", "b", "\u00e9")
    flags = np.arange(20).reshape(10, 2) % 2
    for names in (np.array(["p", "\u00e9"]), np.array([b"p", "\u00e9".encode()])):
        data = read_npz(save(tmp_path / "a.npz", x=FLOATS, y=flags, labels=names), 0, "flags")
        assert data.labels == ("p", "\u00e9")


def test_what_is_no_file_of_arrays_is_refused(tmp_path, refused):
    (tmp_path / "a.npz").write_bytes(b"no zip")
    with refused(DataError, f"cannot read {tmp_path / 'a.npz'}: ", hint="write it with numpy.savez(path, x=x, y=y)"):
        read_npz(tmp_path / "a.npz", 0)


@pytest.mark.parametrize(
    ("x", "shape", "kind"),
    [
        (np.zeros((10, 4, 4, 1), np.uint8), (4, 4), np.uint8),  # pixels of one channel
        (np.zeros((10, 4, 4, 3), np.uint8), (4, 4, 3), np.uint8),
        (np.zeros((10, 4, 1), np.uint8), (4, 1), np.uint8),
        (np.zeros((10, 4, 4, 1)), (4, 4, 1), np.float32),
        (np.zeros((10, 4), bool), (4,), np.float32),
        (np.zeros((10, 4), np.int16), (4,), np.float32),
        (np.zeros((1, 4)), (4,), np.float32),
    ],
    ids=lambda v: str(getattr(v, "shape", v)),
)
def test_pixels_stay_what_they_are_and_numbers_become_floats(x, shape, kind, tmp_path):
    samples = whole(read_npz(save(tmp_path / "a.npz", x=x), 0), "samples")
    assert (samples.shape, samples.dtype) == ((len(x), *shape), kind)


def test_labels_are_sorted_and_targets_count_them(tmp_path):
    y = np.array(["b", "c", "a", "c", "b"] * 2)
    data = read_npz(save(tmp_path / "pets.npz", x=FLOATS, y=y), 3)
    assert (data.name, data.labels, data.seed) == ("pets", ("a", "b", "c"), 3)
    for row, target in zip(whole(data, "samples"), whole(data, "targets"), strict=True):
        assert data.labels[target] == y[int(row[0]) // 2]
    assert whole(data, "targets").dtype == np.int64
    other = read_npz(tmp_path / "pets.npz", 4)
    assert whole(data, "samples").tolist() != whole(other, "samples").tolist()


def test_with_numbers_for_targets_there_are_no_labels(tmp_path):
    data = read_npz(save(tmp_path / "a.npz", x=FLOATS, y=TEN), 2, targets="numbers")
    assert (data.labels, data.numeric, data.seed) == ((), True, 2)
    np.testing.assert_array_equal(whole(data, "targets")[:, 0] * 2, whole(data, "samples")[:, 0])
    bare = read_npz(save(tmp_path / "b.npz", x=FLOATS), 2, targets="numbers")
    assert (bare.labels, bare.split("train").targets, bare.seed, bare.name) == ((), None, 2, "b")


def test_numbers_are_a_row_a_sample(refused):
    assert as_numbers("a", np.arange(3), 3).tolist() == [[0], [1], [2]]
    assert as_numbers("a", np.array(["1.5", "2"]), 2).tolist() == [[1.5], [2]]
    rows = as_numbers("a", np.ones((2, 3)), 2)
    assert (rows.shape, rows.dtype) == ((2, 3), np.float32)
    with refused(DataError, "the targets of a are not numbers: ", hint="fit a classifier: --head linear"):
        as_numbers("a", np.array(["x"]), 1)
    for y, count in [(np.ones((2, 3, 1)), 2), (np.ones(2), 3), (np.array([1, np.nan]), 2)]:
        with refused(DataError, hint="give one number, or one row of them, for each sample") as caught:
            as_numbers("a", y, count)
        shape = f"the targets of a have shape {y.shape} for {count} samples, or are not finite"
        assert caught.value.message == shape


def test_arrays_by_the_names_of_inputs_are_samples_of_several_things(tmp_path, refused):
    generator = np.random.default_rng(0)
    arrays = {"image": generator.normal(size=(20, 1, 4, 4)).astype(np.float32), "ids": np.arange(60).reshape(20, 3)}
    np.savez(tmp_path / "two.npz", **arrays, y=np.arange(20) % 2)
    data = read_npz(tmp_path / "two.npz", 0, "classes", names=[("image", "ids")])
    assert data.labels == ("0", "1")
    rows = [row for name in SPLITS for row in data.split(name).samples]
    assert sorted(int(row["ids"][0]) // 3 for row in rows) == list(range(20))
    for row in rows:
        i = int(row["ids"][0]) // 3
        np.testing.assert_array_equal(row["image"], arrays["image"][i])
        assert row["ids"].dtype == np.int64
    with refused(DataError, "no array 'x'"):
        read_npz(tmp_path / "two.npz", 0, "classes")
    np.savez(tmp_path / "odd.npz", image=arrays["image"], ids=arrays["ids"][:3])
    with refused(DataError, "20 of 'image', 3 of 'ids'"):
        read_npz(tmp_path / "odd.npz", 0, "classes", names=[("image", "ids")])


def test_what_unpacks_to_more_than_the_limit_is_refused_before_it_is_unpacked(tmp_path, refused, monkeypatch):
    x = np.zeros((10, 100_000), np.uint8)
    np.savez_compressed(tmp_path / "bomb.npz", x=x, y=TEN)
    np.savez(tmp_path / "plain.npz", x=x, y=TEN)
    assert (tmp_path / "bomb.npz").stat().st_size < 10_000
    monkeypatch.setenv("POCKETZOO_MAX_UNPACKED_BYTES", "1000000")
    with refused(TooLargeError, "bomb.npz has 1,000,", "bytes, unpacked", hint="POCKETZOO_MAX_UNPACKED_BYTES"):
        read_npz(tmp_path / "bomb.npz", 0)
    assert len(whole(read_npz(tmp_path / "plain.npz", 0), "samples")) == 10, "it is as large as its file"
    monkeypatch.setenv("POCKETZOO_MAX_UNPACKED_BYTES", "2000000")
    assert len(whole(read_npz(tmp_path / "bomb.npz", 0), "samples")) == 10


@pytest.mark.parametrize("shape", ["(10, 100000000000)", "(10, 3)", "(99999999999999999999, 2)"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_array_that_says_it_is_larger_than_its_bytes_is_refused(shape, version, tmp_path, refused):
    """numpy would make an array of the stated size before it reads the first byte."""
    member = io.BytesIO()
    np.lib.format.write_array(member, np.zeros((10, 2), np.float32), version=version)
    said = b"'shape': (10, 2), }"
    assert said in member.getvalue()
    longer = f"'shape': {shape}, }}".encode()
    body = member.getvalue().replace(said, longer, 1).replace(b" " * (len(longer) - len(said)), b"", 1)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", body)
    with refused(DataError, "cannot read", "its array 'x' is shorter than it says"):
        read_npz(tmp_path / "d.npz", 0)


def tensor(name: str, *shape: int | str, dtype: str = "float32", batch: int | None = 0) -> TensorSpec:
    return TensorSpec(name=name, shape=shape, dtype=dtype, batch=batch)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "int64", "bool", "float64", "float16"])
@pytest.mark.parametrize("name", ["x", "ids", "whatever"])
def test_an_array_stays_what_it_is_where_the_model_reads_such(dtype, name, tmp_path):
    """Also (N, H, W, 1), which of pixels would lose its last axis."""
    x = np.random.default_rng(0).integers(0, 2, (6, 4, 4, 1)).astype(dtype)
    path = save(tmp_path / "a.npz", **{name: x})
    samples, _ = npz_samples(path, [("ids",)], inputs=[tensor("ids", "n", 4, 4, 1, dtype=dtype)])
    got = np.stack([sample["ids"] if isinstance(sample, dict) else sample for sample in samples])
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, x)


def test_what_is_as_one_sample_has_it_is_given_once(tmp_path):
    inputs = [tensor("x", "n", 3), tensor("rate", dtype="int64", batch=None), tensor("h", 2, "n", 4, batch=1)]
    names = [tuple(t.name for t in inputs)]
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    path = save(tmp_path / "a.npz", x=x, rate=np.int64(16000), h=np.zeros((1, 2, 4), np.float32))
    samples, _ = npz_samples(path, names, inputs=inputs)
    assert len(samples) == 5
    assert all(sample["rate"] == 16000 and sample["h"].shape == (2, 4) for sample in samples)
    np.testing.assert_array_equal(np.stack([sample["x"] for sample in samples]), x)
    with pytest.raises(DataError, match="has no array 'rate', which is an input of the model"):
        npz_samples(save(tmp_path / "b.npz", x=x, h=np.zeros((1, 2, 4), np.float32)), names, inputs=inputs)


def test_samples_may_lie_along_the_axis_that_the_model_has_them_along(tmp_path):
    inputs = [tensor("x", "n", 3), tensor("h", 2, "n", 4, batch=1)]
    x, h = np.arange(15, dtype=np.float32).reshape(5, 3), np.arange(40, dtype=np.float32).reshape(2, 5, 4)
    as_read, _ = npz_samples(save(tmp_path / "a.npz", x=x, h=h), [("x", "h")], inputs=inputs)
    rows, _ = npz_samples(save(tmp_path / "b.npz", x=x, h=h.transpose(1, 0, 2)), [("x", "h")], inputs=inputs)
    for one, other, row in zip(as_read, rows, h.transpose(1, 0, 2), strict=True):
        np.testing.assert_array_equal(one["h"], row)
        np.testing.assert_array_equal(other["h"], row)


def test_a_folder_of_arrays_is_its_files_one_after_the_other(tmp_path):
    """Of which each may have samples of its own length; one is safetensors."""
    from safetensors.numpy import save_file

    inputs = [tensor("a", "n", "t", dtype="int64")]
    save(tmp_path / "1.npz", a=np.zeros((2, 3), np.int64), y=np.array(["p", "q"]))
    save(tmp_path / "2.npz", a=np.ones((1, 5), np.int64), y=np.array(["p"]))
    assert [file.name for file in array_files(tmp_path)] == ["1.npz", "2.npz"]
    samples, further = npz_samples(tmp_path, [("a",)], inputs=inputs)
    assert [sample["a"].shape for sample in samples] == [(3,), (3,), (5,)]
    assert further["y"].tolist() == ["p", "q", "p"]
    save_file({"a": np.full((2, 4), 7, np.int64)}, tmp_path / "3.safetensors")
    with pytest.raises(DataError, match=r"some files of .* have an array 'y'"):
        npz_samples(tmp_path, [("a",)], inputs=inputs)
    samples, _ = npz_samples(tmp_path / "3.safetensors", [("a",)], inputs=inputs)
    assert [sample["a"].tolist() for sample in samples] == [[7] * 4] * 2
    (tmp_path / "cat.png").write_bytes(b"")
    assert array_files(tmp_path) == []


@pytest.mark.parametrize(
    ("arrays", "inputs", "targets"),
    [
        ("x y", "x", True), ("x y", "x y", False), ("y", "y", False), ("x y", "y", True), ("a y", "a y", False),
        ("a y", "a", True), ("x", "x", False),
    ],
)  # fmt: skip
def test_what_the_model_reads_by_the_name_of_targets_is_its_input(arrays, inputs, targets, tmp_path):
    given = {name: np.arange(20.0, dtype=np.float32).reshape(10, 2) + i for i, name in enumerate(arrays.split())}
    if targets:
        given["y"] = np.arange(10) % 2
    np.savez(tmp_path / "d.npz", **given)
    names = tuple(inputs.split())
    data = read_npz(tmp_path / "d.npz", 0, names=[names], inputs=tuple(tensor(name, "n", 2) for name in names))
    splits = [data.split(name) for name in SPLITS]
    assert all((split.targets is not None) == targets for split in splits)
    assert sum(len(split) for split in splits) == 10
    sample = splits[0].samples[0]
    assert set(sample if isinstance(sample, dict) else names[:1]) == set(names)
