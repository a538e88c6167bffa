"""A checkpoint is one file, whole or not at all, and training goes on from it bit for bit."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from qsim import optim
from qsim.errors import InputError


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
    """Whichever byte of a small checkpoint is changed, and however it is cut, it is refused or loads as what was saved."""
    path, tree = tmp_path / "c.npz", {"w": np.arange(4.0), "a": {"step": 3, "d": {}}}
    optim.save(path, tree)
    good = path.read_bytes()
    changed = [good[:at] + bytes([good[at] ^ 255]) + good[at + 1 :] for at in range(len(good))]
    refused = 0
    for bad in (*changed, *(good[:size] for size in range(0, len(good), 13))):
        path.write_bytes(bad)
        try:
            assert same(optim.load(path), tree)
        except InputError:
            refused += 1
    assert refused > len(changed) / 2


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
