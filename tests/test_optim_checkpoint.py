"""A checkpoint is one file, whole or not at all, and training goes on from it bit for bit."""

from __future__ import annotations

import os
import pickle
import sys
import types
import warnings
import zipfile
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from qsim import optim
from qsim.errors import InputError

MLDTYPES = [
    "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e4m3b11fnuz", "float8_e3m4",
    "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int4", "uint4", "int2", "uint2",
]  # fmt: skip


def same(a, b):
    """Return whether two trees are equal: keys in order, types, shapes, bits."""
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


def test_what_is_saved_is_loaded(tmp_path):
    """Arrays of every number type and shape, integers, empty dicts and the order of keys survive; so do NaN and -0."""
    tree = {
        "z": {"w": np.array([[np.nan, -0.0], [np.inf, 1e-45]], np.float32), "empty": np.zeros((0, 3))},
        "a": {
            "step": 7,
            "nothing": {},
            "codes": np.arange(5, dtype=np.uint8),
            "one": np.array(2.5),
            "no": np.array(True),
        },
        "layer.0": {"b": np.arange(3, dtype=np.int64)},
    }
    optim.save(tmp_path / "c.npz", tree)
    assert same(optim.load(tmp_path / "c.npz"), tree)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]
    with np.load(tmp_path / "c.npz", allow_pickle=False) as file:
        assert file["a/step#int"] == 7
    optim.save(tmp_path / "d.npz", {})
    assert optim.load(tmp_path / "d.npz") == {}


LEAVES = {
    **{
        kind: np.arange(-3, 3).astype(kind)
        for kind in ("int8", "int16", "int32", "int64", "float16", "float32", "float64")
    },
    **{kind: np.arange(6).astype(kind) for kind in ("uint8", "uint16", "uint32", "uint64", "bool")},
    **{kind: np.arange(6).astype(kind) for kind in (">f2", ">f4", ">f8", ">i2", ">u8")},
    "longdouble": np.arange(6).astype(np.longdouble) / 3,
    **{kind: np.arange(6).astype(getattr(ml_dtypes, kind)) for kind in MLDTYPES},
}


@pytest.mark.parametrize("kind", LEAVES)
def test_arrays_of_every_type_and_layout_come_back(kind, tmp_path):
    """Each number type, those of ml_dtypes and foreign byte orders among them, keeps its type, shape and every bit."""
    x = LEAVES[kind]
    bits = np.random.default_rng(0).integers(0, 256, 24 * x.itemsize, np.uint8).view(x.dtype).reshape(2, 3, 4)
    bits = bits if kind not in ("bool", "longdouble") else np.zeros((2, 3, 4), x.dtype)
    tree = {
        "plain": x,
        "random": bits,
        "fortran": np.asfortranarray(bits[0]),
        "transposed": bits.transpose(2, 0, 1),
        "strided": x[::-2],
        "broadcast": np.broadcast_to(x[:1], (2, 3)),
        "no axes": x[0:1].reshape(()),
        "scalar": x[3],
        "empty": bits[:0],
    }
    optim.save(tmp_path / "c.npz", tree)
    loaded = optim.load(tmp_path / "c.npz")
    assert list(loaded) == list(tree)
    for name, before in tree.items():
        after = loaded[name]
        assert type(after) is type(before)
        assert after.dtype == before.dtype
        assert after.shape == before.shape
        # Bytes between long doubles are no part of them.
        assert after.tobytes() == before.tobytes() if kind != "longdouble" else np.array_equal(after, before)


KEYS = ["a.b", "a b", " ", "0", "é", "e\u0301", "w.npy", "..", "C:\\x", "日本", "a" * 3000, "\n", "-", "int", "scalar"]


def test_keys_of_all_kinds_come_back(tmp_path):
    """Any key of Unicode characters is kept as it is, with its place in the order; those that look alike stay apart."""
    tree = {key: {inner: np.arange(2) for inner in KEYS[:4]} | {"d": {}, "n": 1} for key in KEYS}
    optim.save(tmp_path / "c.npz", tree)
    assert same(optim.load(tmp_path / "c.npz"), tree)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("", "the key ''"),
        ("a/b", "the key 'a/b'"),
        ("a#int", "the key 'a#int'"),
        ("a\0b", r"the key 'a\\x00b'"),
        ("\udc80", r"the key '\\udc80'"),
        (0, "the key 0"),
        ((1, 2), r"the key \(1, 2\)"),
        (b"a", "the key b'a'"),
        (None, "the key None"),
        ("a" * 70_000, "aaa... is a path of over 65435 bytes"),
        ("é" * 33_000, "éé... is a path of over 65435 bytes"),
    ],
)
def test_keys_that_an_archive_cannot_hold_are_refused(key, sentence, tmp_path):
    """A key that would come back as another, or not at all, is refused when it is saved."""
    for tree, where in (({key: 1}, "" if "path" in sentence else "a checkpoint has "), ({"in": {key: {}}}, "")):
        with pytest.raises(InputError, match=where + sentence if where else sentence):
            optim.save(tmp_path / "c.npz", tree)
    assert not list(tmp_path.iterdir())


class Pair(NamedTuple):
    """Hold two numbers."""

    a: int
    b: int


@pytest.mark.parametrize(
    ("leaf", "sentence"),
    [
        (np.ma.masked_array([1.0, 2.0], [False, True]), "is a masked array; save its data and its mask"),
        (np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), "is recarray"),
        (np.zeros(2, [("a", np.float32)]), r"is \[\('a', '<f4'\)\]"),
        (np.array([None]), "is object"),
        (np.array(["text"]), "is <U4"),
        (np.array([b"text"]), r"is \|S4"),
        (np.ones(2, complex), "is complex128"),
        (np.array(["2020"], "M8[D]"), "is datetime64"),
        (np.complex64(1), "is complex64"),
        (1.5, "is float"),
        (True, "is bool"),
        (None, "is NoneType"),
        ("text", "is str"),
        ([], "is list"),
        ((), "is tuple"),
        (Pair(1, 2), "is Pair"),
        ({1}, "is set"),
        (types.MappingProxyType({}), "is mappingproxy"),
        (1 << 63, "= 9223372036854775808 does not fit 64 bits"),
        (-(1 << 63) - 1, "= -9223372036854775809 does not fit"),
        (1 << 20_000, "= an integer of 20001 bits does not fit"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:12],
)
def test_leaves_that_would_change_are_refused(leaf, sentence, tmp_path):
    """What would come back as something else, or would need a pickle, is refused by its path when it is saved."""
    with pytest.raises(InputError, match=rf"^in/leaf {sentence}"):
        optim.save(tmp_path / "c.npz", {"in": {"leaf": leaf}})
    assert not list(tmp_path.iterdir())


def test_integers_of_64_bits_come_back(tmp_path):
    """The ends of 64 bits are integers that a checkpoint holds."""
    tree = {"least": -(1 << 63), "most": (1 << 63) - 1, "zero": 0}
    optim.save(tmp_path / "c.npz", tree)
    assert same(optim.load(tmp_path / "c.npz"), tree)


def test_trees_that_are_too_deep_are_refused(tmp_path):
    """A dict that holds itself, and one of 2,000 levels, are refused; one of a hundred levels comes back."""
    cyclic = {}
    cyclic["a"] = cyclic
    deep = {}
    for _ in range(2000):
        deep = {"a": deep}
    for tree in (cyclic, deep):
        with pytest.raises(InputError, match="nested too deeply, or one that holds itself"):
            optim.save(tmp_path / "c.npz", tree)
    tree = {"end": np.ones(2)}
    for _ in range(100):
        tree = {"a": tree}
    optim.save(tmp_path / "c.npz", tree)
    assert same(optim.load(tmp_path / "c.npz"), tree)


def test_types_of_a_package_that_is_missing_are_named(tmp_path, monkeypatch):
    """Without ml_dtypes a checkpoint with bfloat16 arrays says which package it needs."""
    optim.save(tmp_path / "c.npz", {"w": np.ones(2, ml_dtypes.bfloat16)})
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        InputError, match=r"c\.npz: holds an array of bfloat16, a type of ml_dtypes: pip install ml_dtypes"
    ):
        optim.load(tmp_path / "c.npz")


@pytest.mark.parametrize("bad", ["", "/", ".", "a\0b", "none/c.npz"])
def test_paths_that_are_no_files_are_refused(bad, here):
    """A folder, a path with a null character, and one in a folder that does not exist are refused, and nothing is left."""
    with pytest.raises(InputError, match=r"cannot be (written|the name of a file)"):
        optim.save(bad, {"a": 1})
    with pytest.raises(InputError, match=r"cannot be (read|the name of a file)"):
        optim.load(bad)
    assert not list(here.iterdir())


def test_equal_trees_are_equal_files(tmp_path):
    """The same tree gives the same bytes, whenever it is written."""
    for name in ("a", "b"):
        optim.save(tmp_path / name, {"w": np.arange(3.0), "step": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {member.date_time[:3] for member in archive.infolist()} == {(1980, 1, 1)}


def test_a_failed_save_leaves_the_old_file(tmp_path):
    """What cannot be saved leaves no trace, and the checkpoint before it stays."""
    path = tmp_path / "c.npz"
    optim.save(path, {"step": 1})
    for bad, sentence in (
        ({"a": np.array([None])}, "a is object"),
        ({"a": {"b": "text"}}, "a/b is str"),
        ({"a/b": 1}, "has the key 'a/b'"),
        ({"a": {3: 1}}, "a has the key 3"),
        ({"a": True}, "a is bool"),
        ({"a": 2**63}, "does not fit 64 bits"),
        ([1], "not list"),
    ):
        with pytest.raises(InputError, match=sentence):
            optim.save(path, bad)
        assert optim.load(path) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be written"):
        optim.save(tmp_path / "no" / "c.npz", {"step": 1})


def test_damaged_files_are_refused(tmp_path):
    """A file that is missing, cut short, changed in its data, or something else is refused by name."""
    path = tmp_path / "c.npz"
    optim.save(path, {"w": np.arange(100.0)})
    good = path.read_bytes()
    middle = len(good) // 2
    changed = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for bad in (good[:-30], good[:50], changed, b"", b"text", np.arange(3.0).tobytes()):
        path.write_bytes(bad)
        with pytest.raises(InputError, match=r"c\.npz: damaged, or another file; expected a checkpoint"):
            optim.load(path)
    np.savez(tmp_path / "p.npz", w=np.array([None]))
    with pytest.raises(InputError, match="damaged, or another file"):
        optim.load(tmp_path / "p.npz")
    with pytest.raises(InputError, match="cannot be read"):
        optim.load(tmp_path / "none.npz")


def test_a_member_with_more_than_its_array_is_refused(tmp_path):
    """Bytes after the array of a member are not passed over."""
    path = tmp_path / "c.npz"
    optim.save(path, {"w": np.arange(4.0)})
    with zipfile.ZipFile(path) as archive:
        comment, content = archive.comment, archive.read("w.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        archive.writestr("w.npy", content + b"x")
    with pytest.raises(InputError, match="damaged"):
        optim.load(path)


def test_no_changed_byte_goes_unnoticed(tmp_path):
    """Whichever byte of a small checkpoint changes by a bit or whole, it is refused or loads as it was saved; likewise cuts."""
    path, tree = tmp_path / "c.npz", {"w": np.ones(2, ml_dtypes.bfloat16), "a": {"step": 3}}
    optim.save(path, tree)
    good = path.read_bytes()
    changed = [
        good[:at] + bytes([byte ^ flipped]) + good[at + 1 :]
        for at, byte in enumerate(good)
        for flipped in (1 << at % 8, 255)
    ]
    sentences = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for bad in (*changed, *(good[:size] for size in range(0, len(good), 7))):
            path.write_bytes(bad)
            try:
                assert same(optim.load(path), tree)
            except InputError as error:
                sentences.append(str(error))
    # Dates, attributes and versions, some 30 of the 200 bytes of a member, say nothing of what it holds.
    assert len(sentences) > 0.7 * len(changed)
    assert set(sentences) == {f"{path}: damaged, or another file; expected a checkpoint, which qsim.optim.save writes"}


def archive_of(path, members, comment=None, **how):
    """Write an archive of members, bytes by name, as if `save` had written it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = f"qsim checkpoint of {len(members)} members".encode() if comment is None else comment
        for name, content in members:
            archive.writestr(name, content, **how)


def npy(array, **fields):
    """Return an array as a member, with other fields in its header."""
    header = {"descr": np.lib.format.dtype_to_descr(np.asarray(array).dtype), "fortran_order": False}
    text = f"{header | {'shape': np.shape(array)} | fields}\n".encode()
    data = np.asarray(array).tobytes()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


ONE = npy(np.arange(3.0))
WRONG = {
    "promises 2^50 elements": [("w.npy", npy(np.arange(3.0), shape=(1 << 50,)))],
    "promises 2^200 elements": [("w.npy", npy(np.arange(3.0), shape=(1 << 200,)))],
    "promises one less": [("w.npy", npy(np.arange(3.0), shape=(2,)))],
    "negative lengths": [("w.npy", npy(np.arange(3.0), shape=(-3,)))],
    "a length that is none": [("w.npy", npy(np.arange(3.0), shape=(3.0,)))],
    "a type of its own": [("w.npy", npy(np.arange(3.0), descr=[("a", "<f8")]))],
    "objects": [("w.npy", npy(np.arange(3.0), descr="|O"))],
    "texts": [("w.npy", npy(np.arange(3.0), descr="<U2"))],
    "times": [("w.npy", npy(np.arange(3), descr="<M8[s]"))],
    "a header that is none": [("w.npy", ONE[:10] + b"{" * 40)],
    "another version": [("w.npy", ONE[:6] + b"\x09" + ONE[7:])],
    "a long header": [("w.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + ONE[10:])],
    "no array": [("w.npy", b"text")],
    "nothing": [("w.npy", b"")],
    "another name": [("w", ONE)],
    "two members of one name": [("w.npy", ONE), ("w.npy", ONE)],
    "no name": [(".npy", ONE)],
    "a leaf and a branch": [("w.npy", ONE), ("w/b.npy", ONE)],
    "a branch and a leaf": [("w/b.npy", ONE), ("w.npy", ONE)],
    "an empty key": [("a//b.npy", ONE)],
    "a key at its end": [("a/.npy", ONE)],
    "an unknown kind": [("w#text.npy", ONE)],
    "an integer of an array": [("w#int.npy", ONE)],
    "an integer of a float": [("w#int.npy", npy(np.array(1.0)))],
    "a dict of numbers": [("w#dict.npy", ONE)],
    "a scalar of an array": [("w#scalar.npy", ONE)],
    "a type of the wrong size": [("w#bfloat16.npy", ONE)],
    "a type of the wrong kind": [("w#bfloat16.npy", npy(np.arange(3, dtype=np.int16)))],
    "a type that is none": [("w#finfo.npy", npy(np.arange(3, dtype=np.uint16)))],
    "kinds in another order": [("w#scalar#bfloat16.npy", npy(np.array(3, np.uint16)))],
    "two kinds": [("w#bfloat16#bfloat16.npy", npy(np.arange(3, dtype=np.uint16)))],
}


@pytest.mark.parametrize("name", WRONG)
def test_archives_that_save_did_not_write_are_refused(name, tmp_path):
    """Members with other names, types or promises are refused in one sentence, and ask for no memory."""
    path = tmp_path / "c.npz"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of two members of one name
        archive_of(path, WRONG[name])
    with pytest.raises(InputError, match=r"c\.npz: damaged, or another file; expected a checkpoint"):
        optim.load(path)


def test_compressed_members_are_none_of_a_checkpoint(tmp_path):
    """A member of 32 MiB of zeros in a file of 64 KiB is refused before it is expanded."""
    path = tmp_path / "c.npz"
    archive_of(path, [("w.npy", npy(np.zeros(1 << 22)))], compress_type=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 16
    with pytest.raises(InputError, match="damaged, or another file"):
        optim.load(path)


def test_no_pickle_is_run(tmp_path):
    """An object array, whose elements are a pickle that would make a folder, makes none."""
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(trap),)

    np.savez(tmp_path / "c.npz", w=np.array([Trap()], object))
    archive_of(tmp_path / "d.npz", [("w.npy", pickle.dumps(Trap()))])
    for name in ("c.npz", "d.npz"):
        with pytest.raises(InputError, match="damaged, or another file"):
            optim.load(tmp_path / name)
    assert not trap.exists()


def regression(w, x, y):
    """Return the gradient of a linear model's squared error."""
    error = x @ w["layer"]["w"].T + w["layer"]["b"] - y
    return {"layer": {"w": error.T @ x / len(x), "b": error.mean(0)}}


DQT = optim.DQT("int4", "absmax")
RUNS = {
    "sgd": optim.sgd(
        optim.cosine(0.1, 20, warm=3), momentum=0.9, rounding={"update": "bfloat16:SR", "moment": "e5m2:SRA(8)"}
    ),
    "adamw": optim.adamw(0.01, weight_decay=0.1, clip=1.0, rounding="bfloat16:SR", kahan=True),
    "adafactor": optim.adafactor(rounding={"update": "bfloat16:SR", "moment2": "bfloat16:SR"}),
    "o2": optim.bf16_adamw("o2", 0.01).optimizer,
    "sharded": optim.sharded(optim.adamw(0.01, rounding="bfloat16:SR"), 3),
    "skip": optim.skip_nonfinite(optim.sgd(0.1)),
    "dqt": DQT.optimizer(optim.adamw(0.01)),
}


@pytest.mark.parametrize("name", RUNS)
def test_training_resumes_bit_for_bit(name, tmp_path):
    """Ten steps in one go, and ten with a file after the fifth, end with the same parameters and states, to the bit."""
    optimizer, path = RUNS[name], tmp_path / "c.npz"
    accumulator, scale = optim.Accumulator("bfloat16:SR"), optim.LossScale(first=4, interval=2)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 2, 4, 5)).astype(np.float32), rng.normal(size=(10, 2, 4, 3)).astype(np.float32)
    first = {"layer": {"w": rng.normal(size=(3, 5)).astype(np.float32), "b": np.zeros(3, np.float32)}}

    def start():
        params = DQT.store(first) if name == "dqt" else first
        return {
            "params": params,
            "optimizer": optimizer.init(params),
            "sum": accumulator.init(first),
            "scale": scale.init(),
        }

    def step(state, k):
        params = state["params"]
        for micro in range(2):
            seen = DQT.weights(params) if name == "dqt" else params
            grads = regression(seen, x[k, micro], y[k, micro])
            grads, scaling = scale.unscale(grads, state["scale"])
            state = state | {"sum": accumulator.add(grads, state["sum"]), "scale": scaling}
        mean, empty = accumulator.mean(state["sum"])
        updates, inner = optimizer.update(mean, state["optimizer"], params)
        return state | {"params": optim.apply_updates(params, updates), "optimizer": inner, "sum": empty}

    straight, broken = start(), start()
    for k in range(10):
        straight = step(straight, k)
    for k in range(5):
        broken = step(broken, k)
    optim.save(path, broken)
    broken = optim.load(path)
    for k in range(5, 10):
        broken = step(broken, k)
    assert same(straight, broken)
