"""The table of claims of reports/README.md, made of the committed results: `python tests/claimed.py` writes it."""

from __future__ import annotations

from pathlib import Path

from qsim.studies.result import Result

REPORTS = Path(__file__).resolve().parents[1] / "reports"
README = REPORTS / "README.md"
BEGIN, END = "<!-- claims: made by `python tests/claimed.py` -->", "<!-- /claims -->"


def table() -> str:
    """Return a row for each claim of each study: what it says, on what it rests, what came of it, and its figure."""
    lines = ["| study | claim | rests on | verdict | figure |", "| --- | --- | --- | --- | --- |"]
    for path in sorted(REPORTS.glob("*/result.json")):
        result = Result.from_json(path.read_text(encoding="utf-8"))
        for claim in result.claims:
            if claim.fault:
                continue
            folder = path.parent.name
            figure = f"[{claim.figure}]({folder}/figures/{claim.figure}.svg)" if claim.figure else ""
            words = (folder, claim.statement, claim.theorem, str(claim.outcome), figure)
            lines.append("| " + " | ".join(word.replace("|", "\\|") for word in words) + " |")
    return "\n".join(lines)


def written(text: str) -> str:
    """Return the page with the table in its place."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
