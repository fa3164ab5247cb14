"""One web page that holds a whole run. It opens offline and loads nothing from elsewhere."""

from __future__ import annotations

import base64
import json
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from ..api.errors import last_line
from ..api.results import RunRecord
from .charts import make_charts
from .tables import HEAD, make_notes, table_rows, warn_of_overfitting

HERE = Path(__file__).parent


def render_page(record: RunRecord, folder: Path) -> str:
    """Return the page of the run in `folder` as HTML."""
    from plotly.offline import get_plotlyjs

    # Plotly interprets some HTML in names.
    charts = make_charts(record.with_texts(partial(escape, quote=False)))
    models = [m for m in record.models if m.kind != "target"]
    positives = sum(m.positive for m in models)
    return render(
        "page.html.jinja",
        title=f"{record.suite.name} on {record.scenario.name}",
        head=HEAD,
        rows=table_rows(record),
        notes=_notes(record),
        explained=[
            *make_notes(record.methods, record.suite.weigh),
            *warn_of_overfitting(record.methods),
        ],
        first=next((summary for _, summary in record.finished), None),
        zoo=(positives, len(models) - positives),
        samples=_samples(folder),
        sections=[(title, text) for title, text, _ in charts],
        # A "</" would end the script element, so every "<" is escaped.
        charts=json.dumps([chart for _, _, chart in charts]).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        origin=describe_origin(record),
        suite=record.suite.text,
    )


def _samples(folder: Path) -> str | None:
    """Return the figure of the generators' samples in base64, or None if there is none."""
    file = folder / "figures" / "samples.png"
    return base64.b64encode(file.read_bytes()).decode() if file.is_file() else None


def render(template: str, **values: Any) -> str:
    """Return one of this folder's templates with its values filled in and escaped."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(autoescape=True, loader=FileSystemLoader(HERE))
    return environment.get_template(template).render(**values)


def _notes(record: RunRecord) -> list[str]:
    """Return notes on methods that declined or failed, on models that could not be made, and on
    suspects with the same weights."""
    notes = [f"{m.method}: n/a, {m.refusal}" for m in record.methods if m.refusal]
    notes += [
        f"{m.method} failed: {last_line(error)}" for m in record.methods for error in m.errors
    ]
    notes += [f"could not be made: {last_line(text)}" for text in record.failures.values()]
    return notes + record.notes_on_weights


def describe_origin(record: RunRecord) -> list[tuple[str, str]]:
    """Return where a run's numbers come from, as pairs (name, value)."""
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
        ("zoos", f"seed {', '.join(map(str, record.zoos))}"),
        ("protocol", f"api {suite.api}, seed {suite.seed}, {suite.repeats} repeats, "
         f"{suite.split:.0%} of the zoo to learn from"),
    ]  # fmt: skip
