"""Pages in Markdown: what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from claimed import README, written

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("reports/*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
NAMED = re.compile(r"`((?:docs|tests|examples|proofs|formats|models|qsim|benchmarks|findings)/[\w./-]+)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_names_of_files_lead_somewhere(page: Path) -> None:
    """Every relative link, and every path in backquotes that begins with a folder of the project, is a file or a folder."""
    text = page.read_text(encoding="utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
    names = [name for name in NAMED.findall(text) if not name.startswith("qsim/_bundle")]  # which a wheel alone has
    assert not [name for name in names if not (ROOT / name).exists()]


def test_pages_are_found() -> None:
    """The pages for users and for contributors are among those looked at."""
    assert {"README.md", "CONTRIBUTING.md", "docs/design.md", "docs/theory.md"} <= {
        str(p.relative_to(ROOT)) for p in PAGES
    }


def test_the_front_page_of_reports_has_their_claims() -> None:
    """Its table is what the committed results say: `python tests/claimed.py` writes it."""
    text = README.read_text(encoding="utf-8")
    assert text == written(text)
    studies = {path.parent.name for path in README.parent.glob("*/study.toml")}
    assert all(f"[{name}]({name}/report.md)" in text for name in studies)
