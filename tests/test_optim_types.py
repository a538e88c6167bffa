"""Parameters of 16 bits are stored in them and computed in float32; gradients of another type become that of the parameters."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qsim
from qsim import optim

BF16 = {"update": "bfloat16"}
NARROW = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}

# Each as it is for a 16-bit type, and as it is for float32 arrays whose write-back is rounded to that type.
OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda rounding: optim.sgd(0.1, rounding=rounding),
    "momentum": lambda rounding: optim.sgd(0.1, momentum=0.9, nesterov=True, weight_decay=0.1, rounding=rounding),
    "adamw": lambda rounding: optim.adamw(0.01, weight_decay=0.1, clip=0.5, rounding=rounding),
    "adafactor": lambda rounding: optim.adafactor(momentum=0.9, rounding=rounding),
    "skip": lambda rounding: optim.skip_nonfinite(optim.sgd(0.1, rounding=rounding)),
    "sharded": lambda rounding: optim.sharded(optim.adamw(0.01, rounding=rounding), 3),
    "gradients": lambda rounding: optim.chain(optim.round_gradients("e4m3"), optim.sgd(0.1, rounding=rounding)),
}


def arrays(seed: int, dtype: Any = np.float32) -> dict[str, Any]:
    """Return parameters or gradients: a matrix, a vector, one without axes and an empty one."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"w": (4, 5), "b": (7,), "s": (), "none": (0, 3)}
    return {name: np.array(rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}


def train(optimizer: optim.Transform, params: Any, gradient_type: Any, steps: int = 4) -> tuple[Any, Any]:
    """Return parameters and state after some steps."""
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(arrays(step + 1, gradient_type), state, params)
        params = optim.apply_updates(params, updates)
    return params, state


def leaves(tree: Any) -> list[Any]:
    """Return the arrays of a tree."""
    return [leaf for _, leaf in optim.tree.parameters(tree) if isinstance(leaf, np.ndarray | np.generic)]


@pytest.mark.parametrize("kind", NARROW)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_narrow_parameters_train_as_float32_rounded_once(name: str, kind: str) -> None:
    """Stored in 16 bits, parameters have the bits of float32 ones whose write-back rounds to that type, and states too."""
    narrow, make = NARROW[kind], OPTIMIZERS[name]
    begin = arrays(0, narrow)
    found, state = train(make(None), begin, narrow)
    wide = {key: p.astype(np.float32) for key, p in begin.items()}
    rounded = make({"update": kind})
    same = rounded.init(wide)
    for step in range(4):
        grads = {key: g.astype(np.float32) for key, g in arrays(step + 1, narrow).items()}
        updates, same = rounded.update(grads, same, wide)
        wide = optim.apply_updates(wide, updates)
    for key, p in found.items():
        assert p.dtype == narrow
        assert type(p) is np.ndarray
        assert p.astype(np.float32).tobytes() == wide[key].tobytes()
    kept, expected = leaves(state), leaves(same)
    assert {leaf.dtype for leaf in kept} <= {np.dtype(np.float32), np.dtype(np.int64)}
    assert [leaf.tobytes() for leaf in kept] == [leaf.tobytes() for leaf in expected]


@pytest.mark.parametrize("rounding", ["bfloat16:SR", "float8_e4m3fn:SR", "bfloat16:RTZ"])
@pytest.mark.parametrize("kahan", [False, True])
def test_a_rounded_write_back_of_narrow_parameters_has_its_words(rounding: str, kahan: bool) -> None:
    """Rounded to values that bfloat16 holds, bfloat16 and float32 parameters take the same words and get the same values."""
    optimizer = optim.sgd(0.1, rounding=rounding, kahan=kahan)
    begin = optim.cast(arrays(0), rounding.replace(":SR", ""))
    narrow = {key: p.astype(ml_dtypes.bfloat16) for key, p in begin.items()}
    found, _ = train(optimizer, narrow, np.float32)
    expected, _ = train(optimizer, begin, np.float32)
    for key, p in found.items():
        assert (p.astype(np.float32) == expected[key]).all()


def test_kahan_compensates_the_rounding_of_the_type() -> None:
    """Without a rounding, 1,000 steps of 2^-12 on a bfloat16 1 are lost; with Kahan's compensation they are not."""
    ends = []
    for kahan in (False, True):
        params = {"w": np.ones(1, ml_dtypes.bfloat16)}
        optimizer = optim.sgd(1.0, kahan=kahan)
        state = optimizer.init(params)
        for _ in range(1000):
            grads = {"w": np.full(1, -(2.0**-12), np.float32)}
            updates, state = optimizer.update(grads, state, params)
            params = optim.apply_updates(params, updates)
        ends.append(float(params["w"][0]))
    # The compensation is float32, in which these sums are exact: the end is 1 + 1000/4096 rounded once.
    assert ends == [1.0, float(ml_dtypes.bfloat16(1 + 1000 / 4096))]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_gradients_become_the_type_of_the_parameters(name: str, dtype: Any) -> None:
    """Gradients of any float type give the bits of those converted first, and states keep their type."""
    optimizer = OPTIMIZERS[name](None)
    computed = np.float64 if dtype is np.float64 else np.float32
    for kind in (np.float64, np.float32, np.float16, ml_dtypes.bfloat16):
        found, state = train(optimizer, arrays(0, dtype), kind, 1)
        assert {leaf.dtype.type for leaf in leaves(state) if leaf.dtype.kind == "f"} <= {computed}
        if name == "adamw" and kind is np.float64 and dtype is not np.float64:
            continue  # clipping divides before it converts
        updates, _ = optimizer.update(
            {key: g.astype(computed) for key, g in arrays(1, kind).items()},
            optimizer.init(arrays(0, dtype)),
            arrays(0, dtype),
        )
        expected = optim.apply_updates(arrays(0, dtype), updates)
        assert all(p.dtype == dtype and p.tobytes() == expected[key].tobytes() for key, p in found.items())


def test_updates_are_rounded_once_to_the_type_of_the_parameters() -> None:
    """A float64 update of a bfloat16 parameter is added in float32; one that is written is not rounded by way of float32."""
    p = {"w": np.ones(1, ml_dtypes.bfloat16)}
    assert optim.apply_updates(p, {"w": np.array([2.0**-8 + 2.0**-9])})["w"][0] == ml_dtypes.bfloat16(1 + 2.0**-7)
    # 1 + 2^-8 + 2^-40 is above the tie, but a tie in float32.
    written = optim.Written(np.array([1 + 2.0**-8 + 2.0**-40]))
    assert optim.apply_updates(p, {"w": written})["w"][0] == ml_dtypes.bfloat16(1 + 2.0**-7)


def test_parameters_without_axes_stay_arrays() -> None:
    """A parameter without axes is an array after an update too, so that an optimizer can begin with it."""
    params, state = train(optim.adamw(0.1), {"s": np.array(1.0)}, None, 0)
    updates, state = optim.adamw(0.1).update({"s": np.array(0.5)}, state, params)
    params = optim.apply_updates(params, updates)
    assert type(params["s"]) is np.ndarray
    optim.adamw(0.1).init(params)


@pytest.mark.parametrize("kind", NARROW)
def test_master_weights_of_narrow_parameters_are_float32(kind: str) -> None:
    """The master copy of 16-bit parameters is float32; what the model sees are its roundings, in 16 bits."""
    optimizer = optim.master_weights(optim.adamw(0.01), kind)
    params, state = train(optimizer, arrays(0, NARROW[kind]), NARROW[kind])
    for name, master in state["master"].items():
        assert master.dtype == np.float32
        assert params[name].dtype == NARROW[kind]
        assert (params[name] == master.astype(NARROW[kind])).all()
        assert not master.size or (params[name].astype(np.float32) != master).any()


@pytest.mark.parametrize("kind", NARROW)
def test_what_else_takes_narrow_arrays(kind: str, tmp_path: Any) -> None:
    """Casts keep the type; means, reductions, unscaled gradients and codes are float32 numbers of narrow arrays."""
    narrow = NARROW[kind]
    params, wide = arrays(0, narrow), {key: p.astype(np.float32) for key, p in arrays(0, narrow).items()}
    cast = optim.cast(params, "e4m3")
    assert all(p.dtype == narrow for p in cast.values())
    assert all((p == optim.cast(wide, "e4m3")[key]).all() for key, p in cast.items())
    accumulator = optim.Accumulator("e4m3:SR")
    mean, _ = accumulator.mean(accumulator.add(params, accumulator.init(params)))
    expected, _ = accumulator.mean(accumulator.add(wide, accumulator.init(wide)))
    reduced, same = (optim.all_reduce([tree] * 3, "bfloat16:SR") for tree in (params, wide))
    grads, _ = optim.LossScale().unscale(params, optim.LossScale().init())
    for key, p in wide.items():
        assert mean[key].tobytes() == expected[key].tobytes()
        assert mean[key].dtype == reduced[key].dtype == grads[key].dtype == np.float32
        assert reduced[key].tobytes() == same[key].tobytes()
        assert (grads[key] == p / np.float32(2**16)).all()
    del params["none"], wide["none"]
    dqt = optim.DQT("int4", "absmax")
    stored, whole = dqt.store(params), dqt.store(wide)
    assert (dqt.codes(stored["w"]) == dqt.codes(whole["w"])).all()
    assert stored["w"]["step"].dtype == np.float32
    assert dqt.saturated(params) == dqt.saturated(wide)
    optim.save(tmp_path / "c.npz", {"params": params})
    again = optim.load(tmp_path / "c.npz")["params"]
    assert all(again[key].dtype == narrow and again[key].tobytes() == p.tobytes() for key, p in params.items())


def test_gradients_of_a_narrow_copy_train_narrow_parameters() -> None:
    """The engine works in float32; its gradients train bfloat16 parameters."""
    model = qsim.nn.MLP((3, 4, 2))
    params = optim.tree.tree_map(lambda _, p: p.astype(ml_dtypes.bfloat16), model.init(np.random.default_rng(0)))
    optimizer = optim.adamw(0.05)
    state, losses = optimizer.init(params), []
    x = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    for _ in range(30):
        seen = optim.tree.tree_map(lambda _, p: p.astype(np.float32), params)
        loss, grads = qsim.value_and_grad(model.loss)(seen, (x, (x[:, 0] > 0).astype(np.int64)))
        updates, state = optimizer.update(grads, state, params)
        params = optim.apply_updates(params, updates)
        losses.append(loss)
    assert losses[-1] < losses[0] / 2
    assert params["layer0"]["w"].dtype == ml_dtypes.bfloat16
