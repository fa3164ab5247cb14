"""One web page that holds a whole run: it opens offline and asks nobody for anything."""

from __future__ import annotations

import base64
import json
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from ..api.errors import last_line
from ..api.results import RunRecord
from .charts import charts
from .tables import HEAD, shown

HERE = Path(__file__).parent


def page(record: RunRecord, folder: Path) -> str:
    """Return the page of the run in `folder`, as HTML."""
    from plotly.offline import get_plotlyjs

    # Plotly reads names as HTML of a kind.
    drawn = charts(record.with_texts(partial(escape, quote=False)))
    models = [m for m in record.models if m.kind != "target"]
    positives = sum(m.positive for m in models)
    return rendered(
        "page.html.jinja",
        title=f"{record.suite.name} on {record.scenario.name}",
        head=HEAD,
        rows=shown(record),
        notes=_notes(record),
        first=next((summary for _, summary in record.finished), None),
        zoo=(positives, len(models) - positives),
        samples=_samples(folder),
        sections=[(title, text) for title, text, _ in drawn],
        # In a script element only "</" could end it: no "<" is left.
        charts=json.dumps([chart for _, _, chart in drawn]).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        provenance=provenance(record),
        suite=record.suite.text,
    )


def _samples(folder: Path) -> str | None:
    """Return the figure of what generators draw, in base64, if there is one."""
    file = folder / "figures" / "samples.png"
    return base64.b64encode(file.read_bytes()).decode() if file.is_file() else None


def rendered(template: str, **values: Any) -> str:
    """Fill in one of this folder's templates; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader

    found = Environment(autoescape=True, loader=FileSystemLoader(HERE)).get_template(template)
    return found.render(**values)


def _notes(record: RunRecord) -> list[str]:
    """Return what the table cannot show: methods that declined or failed, models not made."""
    notes = [f"{m.method}: n/a, {m.refusal}" for m in record.methods if m.refusal]
    notes += [
        f"{m.method} failed: {last_line(error)}" for m in record.methods for error in m.errors
    ]
    notes += [f"not made: {last_line(text)}" for text in record.failures.values()]
    return notes


def provenance(record: RunRecord) -> list[tuple[str, str]]:
    """Return where a run's numbers come from: (name, value)."""
    run, suite, scenario, git = record.run, record.suite, record.scenario, record.run.git
    versions = {k: run.versions.get(k) for k in ("fpbench", "python", "torch")}
    return [
        ("run", f"{run.id}, started {run.started.isoformat()}, {run.seconds:.0f} s"),
        ("device", f"{run.device}, {run.cpus} cores, {run.platform}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("commit", f"{git.commit}{' with changes' if git.dirty else ''}" if git else "none"),
        ("data", scenario.data or scenario.name),
        ("suite", f"{suite.file}, sha256 {suite.sha256}"),
        ("overrides", " ".join(suite.overrides) or "none"),
        ("protocol", f"api {suite.api}, seed {suite.seed}, {suite.repeats} repeats, "
         f"{suite.split:.0%} of the zoo to learn from"),
    ]  # fmt: skip
