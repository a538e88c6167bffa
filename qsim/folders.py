"""Where the project's folders are: inside an installed wheel, beside qsim/ in a checkout."""

from pathlib import Path
from typing import Literal

__all__ = ["folder"]

PACKAGE = Path(__file__).resolve().parent


def folder(name: Literal["formats", "models", "proofs", "reports"]) -> Path:
    """Return the folder `name`: the bundled one of a wheel, else the one of the checkout.

    Raises `FileNotFoundError` where there is neither, which means a damaged installation.
    """
    bundled = PACKAGE / "_bundle" / name
    if bundled.is_dir():
        return bundled
    tree = PACKAGE.parent / name
    # `formats`, `models`, `proofs` and `reports` are also names of other people's packages: beside an installed qsim/ such
    # a folder would be theirs. Only a checkout has pyproject.toml there.
    if tree.is_dir() and (PACKAGE.parent / "pyproject.toml").is_file():
        return tree
    msg = f"qsim has no folder {name!r}, neither {bundled} nor {tree} of a checkout; reinstall qsim-numerics"
    raise FileNotFoundError(msg)
