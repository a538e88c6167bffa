"""Where the folders are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from qsim import folders


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty stand-in for the folder of the package."""
    package = tmp_path / "qsim"
    package.mkdir()
    monkeypatch.setattr(folders, "PACKAGE", package)
    return package


def test_the_bundle_comes_first(package: Path) -> None:
    """In a wheel the bundled folder is taken, whatever lies beside the package."""
    bundled = package / "_bundle" / "formats"
    bundled.mkdir(parents=True)
    (package.parent / "formats").mkdir()
    (package.parent / "pyproject.toml").touch()
    assert folders.folder("formats") == bundled


def test_the_checkout_comes_second(package: Path) -> None:
    """In a checkout the folder beside the package is taken."""
    (package.parent / "proofs").mkdir()
    (package.parent / "pyproject.toml").touch()
    assert folders.folder("proofs") == package.parent / "proofs"


def test_a_stranger_is_not_taken(package: Path) -> None:
    """A folder of that name beside an installed package belongs to somebody else and is refused."""
    (package.parent / "reports").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no folder 'reports'.*reinstall qsim-numerics"):
        folders.folder("reports")


@pytest.mark.parametrize("name", ["formats", "models", "proofs", "reports"])
def test_every_folder_is_there(name: str) -> None:
    """Each of the three folders is found from where these tests run, and holds something."""
    assert any(folders.folder(name).iterdir())
