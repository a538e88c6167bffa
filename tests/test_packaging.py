"""What is built and installed: the wheel's content, the environments' versions, the way to run the tests."""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import qsim
from qsim.formats import load_formats

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# The built wheel is made once a worker: keep its tests together.
pytestmark = pytest.mark.xdist_group("packaging")

TIMEOUT = 180
"""Seconds after which a subprocess hangs rather than works."""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run `command` in `cwd` and return what it printed; fail with everything it said if it fails."""
    inherited = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "PYTHONSAFEPATH"}}
    done = subprocess.run(
        command, cwd=cwd, env=inherited | environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the sdist from the checkout and the wheel from that sdist; return the folder with both."""
    out = tmp_path_factory.mktemp("dist")
    # Without isolation nothing is fetched. The wheel comes from the sdist, so both lists in pyproject.toml are tried;
    # tox builds its wheel from the checkout directly.
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def site(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone into an empty folder outside the checkout; return that folder."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = dist.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-index", "--no-deps", "--no-compile", "--target", folder, wheel, cwd=folder)
    return folder


def files(folder: Path, *patterns: str) -> set[str]:
    """Return the files under `folder` that match, as relative names."""
    found = (path for pattern in patterns for path in folder.glob(pattern))
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


# --- The wheel -----------------------------------------------------------------------------------------------------


def test_only_qsim_is_importable(site: Path) -> None:
    """The wheel puts one name into site-packages, `qsim`, and one command beside it."""
    info = f"qsim_numerics-{PYPROJECT['project']['version']}.dist-info"
    assert {path.name for path in site.iterdir()} == {"qsim", info, "bin"}
    assert {path.stem for path in (site / "bin").iterdir()} == {"qsim"}


def test_metadata(site: Path) -> None:
    """The wheel says its name, version, licence and supported Pythons, and carries the licence's text."""
    (found,) = importlib.metadata.distributions(path=[str(site)])
    assert found.metadata["Name"] == "qsim-numerics"
    assert found.metadata["License-Expression"] == "MIT"
    assert found.metadata["Requires-Python"] == ">=3.11"
    assert found.version == PYPROJECT["project"]["version"]
    assert "the qsim authors" in (found.read_text("licenses/LICENSE") or "")


def test_the_package_is_complete(site: Path) -> None:
    """The wheel holds the modules, the type marker and the templates of the checkout's qsim/, no fewer and no more."""
    held = {name for name in files(site / "qsim", "**/*") if not name.startswith("_bundle/")}
    assert held == {name for name in files(ROOT / "qsim", "**/*") if "__pycache__" not in name}
    assert "py.typed" in held
    assert any(name.startswith("report/templates/") and name.endswith(".jinja") for name in held)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [("formats", "**/*.toml"), ("models", "**/*.toml"), ("proofs", "*.py"), ("reports", "*/study.toml")],
)
def test_bundled_folders_are_complete(site: Path, name: str, pattern: str) -> None:
    """A bundled folder holds the files of the checkout's that a user needs, byte for byte, and no others."""
    bundled = site / "qsim" / "_bundle" / name
    wanted = files(ROOT / name, pattern)
    assert wanted
    assert files(bundled, "**/*") == wanted, f"list every study.toml in pyproject.toml; keep {name}/ to {pattern}"
    for file in wanted:
        assert (bundled / file).read_bytes() == (ROOT / name / file).read_bytes()


def test_formats_from_the_wheel(site: Path, tmp_path: Path) -> None:
    """`qsim formats --json` of the installed wheel, run from elsewhere, lists every entry of `formats/`."""
    where = run(sys.executable, "-c", "import qsim; print(qsim.__file__)", cwd=tmp_path, PYTHONPATH=str(site))
    assert Path(where.strip()).is_relative_to(site)
    printed = run(sys.executable, "-m", "qsim", "formats", "--json", cwd=tmp_path, PYTHONPATH=str(site))
    wanted = {fmt.name for path in (ROOT / "formats").glob("*.toml") for fmt in load_formats(path)}
    assert wanted <= names(json.loads(printed))


def names(printed: Any) -> set[str]:
    """Return every "name" in a JSON document, however it is nested."""
    if isinstance(printed, dict):
        own = {printed["name"]} if isinstance(printed.get("name"), str) else set()
        return own.union(*map(names, printed.values()))
    return set().union(*map(names, printed)) if isinstance(printed, list) else set()


def test_the_bundle_mirrors_the_checkout() -> None:
    """Each path that pyproject.toml bundles exists (a missing one fails the build) and keeps its name."""
    for source, target in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"].items():
        assert (ROOT / source).exists()
        assert target == f"qsim/_bundle/{source}"


def test_sdist_is_complete(dist: Path) -> None:
    """The sdist holds what is needed to build and test, and nothing that only a working copy has."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames()}
    top = {name.split("/", 1)[0] for name in held}
    needed = {
        "qsim",
        "formats",
        "models",
        "proofs",
        "reports",
        "tests",
        "tox.ini",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }
    listed = {entry.strip("/") for entry in PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    assert needed <= top
    assert top <= listed | {"pyproject.toml", "PKG-INFO", ".gitignore"}
    assert not [name for name in held if "__pycache__" in name]


# --- The environment that runs these tests -------------------------------------------------------------------------


def test_the_wheel_is_what_is_tested(tmp_path: Path) -> None:
    """Under tox the tests import the installed wheel, never the checkout, and so do the processes they start."""
    installed = Path(sysconfig.get_path("purelib")) / "qsim"
    allowed = {installed} if "TOX_ENV_NAME" in os.environ else {installed, ROOT / "qsim"}
    assert Path(qsim.__file__).parent in allowed
    if "TOX_ENV_NAME" in os.environ:
        where = (sys.executable, "-c", "import qsim; print(qsim.__file__)")
        for cwd in (ROOT, tmp_path):
            child = subprocess.run(where, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT, check=True)
            assert Path(child.stdout.strip()).parent == installed


def test_the_module_runs_in_the_checkout() -> None:
    """`python -m qsim` works in the checkout, on the checkout's own modules, with nothing of qsim installed."""
    assert "formats" in run(sys.executable, "-m", "qsim", "--help", cwd=ROOT)
    where = run(sys.executable, "-c", "import qsim; print(qsim.__file__)", cwd=ROOT)
    assert Path(where.strip()).parent == ROOT / "qsim"


# --- The versions promised -----------------------------------------------------------------------------------------


def bounds() -> dict[str, str]:
    """Return the lower bound of every dependency of pyproject.toml, extras included."""
    project = PYPROJECT["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    found = {}
    for requirement in map(Requirement, texts):
        (specifier,) = requirement.specifier
        assert specifier.operator == ">=", f"{requirement}: one lower bound, which tox's `oldest` pins"
        found[canonicalize_name(requirement.name)] = specifier.version
    return found


def test_oldest_pins_the_lower_bounds() -> None:
    """The pins of tox's `oldest` are exactly the lower bounds of pyproject.toml."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    lines = tox["testenv:oldest"]["deps"].split()
    pins = dict(line.split("==") for line in lines)
    assert {canonicalize_name(name): version for name, version in pins.items()} == bounds()
    assert len(pins) == len(lines)


@pytest.mark.parametrize("name", sorted(bounds()))
def test_installed_version(name: str) -> None:
    """Every dependency is installed: in tox's `oldest` in the promised version, elsewhere in that or a newer one."""
    installed, bound = Version(importlib.metadata.version(name)), Version(bounds()[name])
    assert installed == bound if os.environ.get("QSIM_OLDEST") == "1" else installed >= bound


# --- The way in ----------------------------------------------------------------------------------------------------


def test_ci_runs_what_the_readme_says() -> None:
    """`.ci/run` ends in the README's test command, so that CI tests what a newcomer would type."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    command = script.rstrip().splitlines()[-1]
    assert command == "python -m pip install tox && tox"
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")
