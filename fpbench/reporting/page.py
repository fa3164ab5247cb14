"""One web page that holds a whole run: it opens offline and asks nobody for anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from ..api.errors import every, last_line
from .charts import charts
from .tables import HEAD, shown

HERE = Path(__file__).parent


def page(data: Mapping[str, Any], folder: Path) -> str:
    """The page of the run in `folder`, as HTML. `data` is what its results.json holds."""
    from plotly.offline import get_plotlyjs

    # Plotly reads names as HTML of a kind.
    drawn = charts(every(data, partial(escape, quote=False)))
    models = [m for m in data["models"] if m["kind"] != "target"]
    positives = sum(m["positive"] for m in models)
    return rendered(
        "page.html.jinja",
        title=f"{data['suite']['name']} on {data['scenario']['name']}",
        head=HEAD,
        rows=shown(data),
        notes=_notes(data),
        first=next((m["summary"] for m in data["methods"] if m["summary"]), None),
        zoo=(positives, len(models) - positives),
        samples=_samples(folder),
        sections=[(title, text) for title, text, _ in drawn],
        # In a script element only "</" could end it: no "<" is left.
        charts=json.dumps([chart for _, _, chart in drawn]).replace("<", "\\u003c"),
        plotly=get_plotlyjs(),
        provenance=provenance(data),
        suite=data["suite"]["text"],
    )


def _samples(folder: Path) -> str | None:
    """The figure of what generators draw, in base64, if there is one."""
    file = folder / "figures" / "samples.png"
    return base64.b64encode(file.read_bytes()).decode() if file.is_file() else None


def rendered(template: str, **values: Any) -> str:
    """One of this folder's templates, filled in; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader

    found = Environment(autoescape=True, loader=FileSystemLoader(HERE)).get_template(template)
    return found.render(**values)


def _notes(data: Mapping[str, Any]) -> list[str]:
    """What the table cannot show: who does not apply, who failed, what could not be made."""
    notes = [f"{m['method']}: n/a, {m['refusal']}" for m in data["methods"] if m["refusal"]]
    for method in data["methods"]:
        for error in method["errors"]:
            notes.append(f"{method['method']} failed: {last_line(error)}")
    notes += [f"not made: {last_line(text)}" for text in data["failures"].values()]
    return notes


def provenance(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where a run's numbers come from, in words: (what, which)."""
    run, suite, scenario = data["run"], data["suite"], data["scenario"]
    git = run["git"]
    versions = {k: run["versions"].get(k) for k in ("fpbench", "python", "torch")}
    return [
        ("run", f"{run['id']}, started {run['started']}, {run['seconds']:.0f} s"),
        ("device", f"{run['device']}, {run['cpus']} cores, {run['platform']}"),
        ("versions", ", ".join(f"{k} {v}" for k, v in versions.items())),
        ("commit", f"{git['commit']}{' with changes' if git['dirty'] else ''}" if git else "none"),
        ("data", scenario["data"] or scenario["name"]),
        ("suite", f"{suite['file']}, sha256 {suite['sha256']}"),
        ("overrides", " ".join(suite["overrides"]) or "none"),
        ("protocol", f"api {suite['api']}, seed {suite['seed']}, {suite['repeats']} repeats, "
         f"{suite['split']:.0%} of the zoo to learn from"),
    ]  # fmt: skip
