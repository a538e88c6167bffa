"""The page of recipes is what the library computes: every order of operations, and rows of the table in part each time."""

from __future__ import annotations

import itertools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from qsim.blocks import get_recipe, judge, outcomes, recipes
from qsim.blocks.gaussian import clipped_maxima
from qsim.blocks.table import HEADS, INTRODUCTION, orders, rows

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "block-recipes.md").read_text(encoding="utf-8")
REMADE = "run `python -m qsim.blocks > docs/block-recipes.md`"


def lines() -> dict[tuple[str, str], list[str]]:
    """Return the cells of the page's table by recipe and rounding."""
    table = PAGE.partition("## The table\n\n")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in table]
    return {(one[0], one[1]): one for one in cells}


def test_the_page_is_complete() -> None:
    """It has a row for each rule and recipe, and each recipe's operations."""
    assert PAGE.startswith(INTRODUCTION), REMADE
    assert set(lines()) == {(row.recipe.name, row.mode) for row in rows()}, REMADE
    assert PAGE.endswith("## Orders of operations\n\n" + "\n".join(orders())), REMADE
    assert len(recipes()) >= 45


@pytest.mark.in_part(24)
@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row.recipe.name}-{row.mode}")
def test_rows_are_what_is_computed(row) -> None:
    """Each cell, to its three digits."""
    cells = [cell.strip() for cell in row.cells()]
    printed = [cell.strip() for cell in lines()[row.recipe.name, row.mode]]
    assert cells == [*printed, ""][: len(HEADS)], REMADE


def test_what_is_claimed() -> None:
    """Clipping makes SR biased under floor and with E4M3's nearest scales; rceil, 3/4, `up` and 17/16 do not clip at all."""
    for name, rule, count in [
        ("mxfp4_e2m1", "floor", 0.492), ("mxfp4_e2m1", "rceil", 0), ("mxfp4_e2m1", "ceil", 0),
        ("mxfp4_e2m1/mxfp4-llm-3-4", None, 0),
    ]:  # fmt: skip
        clipped, of, _ = clipped_maxima(get_recipe(name, rule))
        assert round(clipped / of, 3) == count
        found = judge(name, "SR", scale_rule=rule)
        assert (found.bias < 1e-12) == (count == 0)
    for name, rule, unbiased in [
        ("nvfp4", "nearest", False),
        ("nvfp4", "up", True),
        ("nvfp4/quartet-II-sr", None, True),
    ]:
        assert (judge(name, "SR", scale_rule=rule, tensor=4.96875).bias < 1e-12) == unbiased


def test_judgements_are_what_samples_show() -> None:
    """The sums equal the means of 2^15 blocks within 5 standard deviations."""
    rng = np.random.default_rng(0)
    for tails, mode in itertools.product(("normal", "laplace"), ("RNE", "SR")):
        numbers = rng.normal(size=(1 << 15, 32)) if tails == "normal" else rng.laplace(0, 0.5**0.5, (1 << 15, 32))
        x = numbers.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
        found, seen = judge("mxfp4_e2m1", mode, tails=tails), outcomes(x, "mxfp4_e2m1", mode)
        square = 1.0  # sigma^2
        bias = ((seen.mean() - x) ** 2).mean(1) / square
        variance = seen.variance().mean(1) / square
        for own, one in ((found.bias, bias), (found.variance, variance)):
            assert abs(own - one.mean()) <= 5 * one.std() / len(x) ** 0.5 + 1e-5 * own + 1e-9
