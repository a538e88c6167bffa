"""Faults planted in the engine, the models, the optimizers and the estimators are seen by the tests of these modules."""

from __future__ import annotations

from pathlib import Path

import planted
import pytest

CONSISTENT: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "max_pool takes the least": ("autograd/pooling", (("flat.argmax(-1)", "flat.argmin(-1)"),)),
    "average_pool divides by one less": (
        "autograd/pooling",
        (
            ("tiles.mean((3, 5))", "tiles.sum((3, 5)) / (size * size - 1)"),
            ("g.dtype.type(size * size)", "g.dtype.type(size * size - 1)"),
        ),
    ),
    "gelu is the logistic approximation": (
        "autograd/pointwise",
        (
            ("p = special.ndtr(x)", "p = _logistic(1.702 * x)"),
            ("p + x * density * np.exp(-x * x / 2)", "p + 1.702 * x * p * (1 - p)"),
        ),
    ),
    "silu and swiglu are twice as steep": (
        "autograd/pointwise",
        (("_logistic(x)", "_logistic(2 * x)"), ("(1 + x * (1", "(1 + 2 * x * (1")),
    ),
    "mean_squared_error is not halved": (
        "autograd/losses",
        ((".mean(-1) / 2, vjp", ".mean(-1), vjp"), ("return difference * share", "return 2 * difference * share")),
    ),
    "the decoder norms twice by one gain": ("nn/llama", (('part["mlp_norm"]["gain"]', 'part["attention_norm"]["gain"]'),)),
    "the network leaves out a residual": ("nn/wideresnet", (("hidden = add(hidden, inner)", "hidden = inner"),)),
}  # fmt: skip
"""Faults of the forward that the derivative shares: central differences agree with it."""

SURVIVORS: dict[str, str] = {
    "autograd/scaling._remembered: -1.0 -> 1.0": "a site that remembers nothing has no scale of step 1 either",
}
"""Single faults that no test can see, with the reason."""


@pytest.mark.in_part(2)
@pytest.mark.parametrize("name", CONSISTENT)
def test_a_forward_that_its_derivative_agrees_with_is_seen(name: str, tmp_path: Path) -> None:
    """The function is another one, and its vjp is right for that one."""
    module, pairs = CONSISTENT[name]
    assert not planted.replaced(module, *pairs).survives(tmp_path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("module", planted.TESTS)
def test_every_single_fault_is_seen(module: str, tmp_path: Path) -> None:
    """Each change by the operators fails a test, but for the survivors."""
    assert [fault.name for fault in planted.faults(module) if fault.survives(tmp_path)] == [
        name for name in SURVIVORS if name.startswith(f"{module}.")
    ]
