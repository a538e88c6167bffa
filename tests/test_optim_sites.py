"""Models of any depth have sites: those beyond the first 4,096 have words of their own, and the others keep theirs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qsim
from qsim import optim
from qsim.autograd import PARAMETER_ROLES, parameter_site
from qsim.autograd.sites import SECOND, layer_site
from qsim.errors import InputError
from qsim.nn import Llama
from qsim.rounding import STREAM_FIELDS, Key, site_key, stream

SITES = st.one_of(
    st.integers(0, (1 << 27) - 1), st.integers(0, 3 << 12), st.sampled_from([0, 1 << 12, 2 << 12, 3 << 12])
)
INDICES = st.one_of(st.integers(0, (1 << 47) - 1), st.sampled_from([0, (1 << 47) - 1]))


@given(
    st.integers(0, 4095), INDICES, st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 18) - 1), st.integers(0, 1023)
)
def test_sites_of_twelve_bits_keep_their_keys(site: int, offset: int, step: int, draw: int, rank: int) -> None:
    """The key of a site below 4,096 is its stream and the offset, as before there were larger ones."""
    found = site_key(7, site, step=step, draw=draw, rank=rank, offset=offset)
    assert found == Key(7, stream(site, step, draw, rank), offset)


def words(key: Key, elements: int, bits: int) -> range:
    """Return the numbers, in the stream, of the 32-bit words that the first elements of an array of 32 or 64 bits take."""
    each = bits // 32
    return range(each * key.offset, each * (key.offset + elements))


def test_no_two_sites_share_a_word() -> None:
    """Arrays of 2^47 elements of 32 or 64 bits at any two sites with one stream take different words, all of the period."""
    taken = [
        (words(site_key(0, page << 12), 1 << 47, bits), page)
        for page in [*range(2000), *range((1 << 15) - 2000, 1 << 15)]
        for bits in (32, 64)
    ]
    taken.sort(key=lambda entry: entry[0].start)
    end, last = 0, 0
    for some, page in taken:
        assert end <= some.start or page == last
        end, last = max((end, last), (some.stop, page))
    assert end <= 1 << 66  # 2^64 blocks of four words


def test_words_of_a_key_are_those_that_arrays_take() -> None:
    """The model of `words` is that of `quantize`: word w of an offset is word 0 of the offset at w, for both widths."""
    for dtype, bits in ((np.float32, 32), (np.float64, 64)):
        key = site_key(3, 3 << 12 | 5)
        x = np.random.default_rng(0).random(50).astype(dtype)
        whole = qsim.quantize(x, "int8:SR", key=key)
        drawn = qsim.arrays.random_words(Key(3, key.stream, words(key, 21, bits)[-(bits // 32)]), 2)
        taken = int(drawn[0]) << 32 | int(drawn[1]) if bits == 64 else int(drawn[0])
        assert whole[20] == qsim.quantize(x[20], "int8", "SRA", sr_bits=bits, rbits=np.uint64(taken))


def test_fields_of_a_site_key_have_bounds() -> None:
    """A site of 28 bits, an offset of 48 bits, and the fields of a stream are refused by name."""
    assert site_key(0, (1 << 27) - 1, offset=(1 << 47) - 1).offset < 1 << 64
    for fields, sentence in (
        ({"site": 1 << 27}, "site 134217728 does not fit the 27 bits"),
        ({"site": -1}, "site -1"),
        ({"site": 5000, "offset": 1 << 47}, "offset 140737488355328 does not fit the 47 bits"),
        ({"site": 5000, "step": 1 << 24}, "step 16777216"),
    ):
        with pytest.raises(InputError, match=sentence):
            site_key(0, **fields)


def test_layers_and_parameters_share_no_number() -> None:
    """Points of layers, their second draws and the roles of parameters are numbered apart, in every thousand of them."""
    points = [layer_site(k) for k in range(3000)]
    second = [number + SECOND for number in points]
    roles = [parameter_site(p, role) for p in range(800) for role in PARAMETER_ROLES]
    assert len({*points, *second, *roles}) == 2 * 3000 + 5 * 800
    assert points[:1024] == list(range(1024))
    assert points[1024] == 4096
    assert parameter_site(256, "update") == 4096 + 2048
    last = (1 << 15) * 256 - 1
    assert parameter_site(last, "comm") < 1 << 27
    for function, wrong in ((lambda k: parameter_site(k, "update"), last + 1), (layer_site, (1 << 15) * 1024)):
        for index in (wrong, -1):
            with pytest.raises(InputError, match=f" {index} (of the layers )?has no site"):
                function(index)


def test_an_offset_of_shards_does_not_reach_the_next_site() -> None:
    """A shard whose last element has an index of 48 bits is refused; one that ends just before is not."""
    link, params = optim.write_back("bfloat16:SR"), {"w": np.ones(4, np.float32)}
    for begin in ((1 << 47) - 4, (1 << 47) - 3, 1 << 47):
        place = optim.Place(offsets={"w": begin})
        if begin == (1 << 47) - 4:
            link.update(params, link.init(params), params, place)
        else:
            with pytest.raises(InputError, match=r"not fit (the )?47 bits"):
                link.update(params, link.init(params), params, place)
    empty = {"w": np.ones(0, np.float32)}
    assert optim.write_back("bfloat16:SR").update(empty, {"step": 0}, empty)[0]["w"].value.size == 0


# --- Deep models -----------------------------------------------------------------------------------------------------

ROUNDINGS = {"update": "bfloat16:SR", "moment": "bfloat16:SR"}
OPTIMIZERS = {
    "sgd": optim.sgd(0.1),
    "rounded sgd": optim.sgd(0.1, momentum=0.9, rounding=ROUNDINGS, kahan=True),
    "adamw": optim.adamw(0.01, clip=1.0, weight_decay=0.1),
    "rounded adamw": optim.adamw(0.01, clip=1.0, rounding=ROUNDINGS),
    "adafactor": optim.adafactor(),
    "rounded adafactor": optim.adafactor(momentum=0.9, rounding=ROUNDINGS),
    "master": optim.master_weights(optim.adamw(0.01)),
    "sharded": optim.sharded(optim.adamw(0.01, rounding=ROUNDINGS), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_models_of_eighty_blocks(name: str) -> None:
    """A decoder of 80 blocks has 563 parameters or more; one step moves every one of them, rounded or not."""
    params = Llama(5, 4, 80, 1, hidden=2).init(np.random.default_rng(0), np.float32)
    leaves = list(optim.tree.parameters(params))
    assert len(leaves) == 80 * 8 + 3
    optimizer = OPTIMIZERS[name]
    rng = np.random.default_rng(1)
    grads = optim.tree.tree_map(lambda _, p: rng.normal(size=p.shape).astype(np.float32), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    new = optim.apply_updates(params, updates)
    for (_, old), (_, p) in zip(leaves, optim.tree.parameters(new), strict=True):
        assert (p != old).any()
        assert p.dtype == np.float32


def test_a_parameter_beyond_the_256th_has_words_of_its_own() -> None:
    """Of 300 equal parameters under equal updates no two are rounded alike, and each as by the key of its site."""
    params = {f"p{i}": np.ones(64, np.float32) for i in range(300)}
    updates = {name: np.full(64, 2.0**-9, np.float32) for name in params}
    link = optim.write_back("bfloat16:SR", seed=5)
    new, _ = link.update(updates, link.init(params), params)
    assert len({new[name].value.tobytes() for name in params}) == 300
    x = np.float32(1) + updates["p0"]
    for index in (0, 255, 256, 299):
        low = 2048 + 8 * (index % 256)
        key = Key(5, stream(low), (1 << 48) if index > 255 else 0)
        assert (new[f"p{index}"].value == qsim.quantize(x, "bfloat16:SR", key=key)).all()


def test_layers_beyond_the_1024th_point_have_words_of_their_own() -> None:
    """A context of 300 layers rounds at each as by the key of its site, draws and samples that share words among them."""
    x = np.random.default_rng(0).normal(size=(1, 3, 20)).astype(np.float32)
    for draws, sample_draws in ((None, "per_sample"), (3, "per_sample"), (None, "shared")):
        with qsim.numerics(
            fwd_act="float8_e4m3fn:SR", seed=9, step=4, draws=draws, sample_draws=sample_draws
        ) as context:
            for k in range(300):
                context.enrol(f"layer{k}")
            for layer in ("layer0", "layer204", "layer205", "layer299"):
                found = context.round(layer, "fwd_act", x)
                for draw, y in enumerate(found):
                    key = site_key(9, layer_site(5 * int(layer[5:])), step=4, draw=draw)
                    rows = x[0] if sample_draws == "per_sample" else [x[0, k] for k in range(3)]
                    expected = (
                        qsim.quantize(rows, "float8_e4m3fn:SR", key=key)
                        if sample_draws == "per_sample"
                        else np.stack([qsim.quantize(row, "float8_e4m3fn:SR", key=key) for row in rows])
                    )
                    assert (y == expected).all()


def test_a_deep_model_trains_with_rounding() -> None:
    """A decoder of 40 blocks, with 1,210 points, takes a step with every point and every role rounded."""
    model = Llama(5, 4, 40, 1, hidden=2)
    params = model.init(np.random.default_rng(0), np.float32)
    codes = np.arange(6).reshape(1, 6) % 5
    policy = {"fwd_act": "e4m3:SR", "fwd_weight": "e4m3:SR", "bwd_grad": "float8_e5m2:SR", **ROUNDINGS}
    optimizer = optim.adamw(0.01, rounding=policy)
    with qsim.numerics(policy) as context:
        _, grads = qsim.value_and_grad(model.loss)(params, (codes, codes))
    assert len(set(context.numbers.values())) == len(context.numbers) == 5 * (40 * 6 + 2)
    assert context.numbers == qsim.autograd.sites(model)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    assert np.isfinite(optim.apply_updates(params, updates)["head"]["w"]).all()
    assert STREAM_FIELDS["site"] == 12
