"""Writes docs/methods.md, docs/reproduction.md and the README's table, from the installed methods
and docs/results/.

python docs/generate.py                          write the documents anew
python docs/generate.py take RUN/results.json    keep a run's results, without trials, for documents
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from fpbench.engine.registry import Registry
from fpbench.reporting.tables import show_methods
from fpbench.testing.toys import TOYS

sys.path.insert(0, str(Path(__file__).parent))
from reproduction import reproduction

DOCS = Path(__file__).parent

HEAD = """\
# Methods

Written by `docs/generate.py` from the installed methods; do not edit. `fpbench describe NAME` shows
a method's settings and where they come from; each plugin's README says what it is weak against.

What it takes:

"""

MEASURED = """
What came out in `{suite}.yaml`, on data `{scenario}`, {device} ({cpus} cores), commit {commit},
{repeats} repeats: mean and 95 % interval. What the numbers mean: [results.md](results.md). A method
whose map to [0, 1] leaves little room has a low ARUC though it ranks well: read the calibrated one
and AUC beside it.

"""

BEGIN, END = "<!-- written by docs/generate.py -->", "<!-- until here -->"
"""In README.md, around what is written."""

CLAIMS = """
What the papers claim, on their own zoos:

"""


def take(results: Path) -> None:
    """Keep what documents are made from: everything but single models, trials and the machine."""
    data = json.loads(results.read_text())
    run = {k: data["run"][k] for k in ("id", "started", "seconds", "device", "cpus", "git")}
    run["versions"] = {k: data["run"]["versions"][k] for k in ("python", "fpbench", "torch")}
    suite = {k: data["suite"][k] for k in ("name", "sha256", "overrides", "seed", "repeats")}
    kept = {"schema": data["schema"], "run": run, "suite": suite, "scenario": data["scenario"],
            "methods": data["methods"], "comparisons": data["comparisons"]}  # fmt: skip
    (DOCS / "results" / f"{suite['name']}.json").write_text(json.dumps(kept) + "\n")


def methods() -> str:
    """The text of docs/methods.md."""
    offers = dict(sorted(Registry.load().methods.items()))
    traits, claims = [], []
    for name, offer in offers.items():
        method = offer.cls()
        tasks = [
            type(toy).__mro__[1].__name__.lower() for toy in TOYS if method.declines(toy) is None
        ]
        levels = ", ".join(str(access) for access in sorted(method.accepts))
        ensemble = "yes" if method.needs_ensemble else ""
        traits.append([_link(name), method.paper, ", ".join(dict.fromkeys(tasks)), levels,
                       str(method.n_queries), ensemble])  # fmt: skip
        if method.claim:
            claims.append([_link(name), method.claim])

    data = json.loads((DOCS / "results" / "quickstart.json").read_text())
    run, suite = data["run"], data["suite"]
    measured = [_measured(m) for m in data["methods"] if m["summary"] and m["name"] in offers]
    return "".join(
        [
            HEAD,
            _table(["method", "paper", "tasks", "access", "queries", "needs an ensemble"], traits),
            MEASURED.format(
                suite=suite["name"], scenario=data["scenario"]["name"], device=run["device"],
                cpus=run["cpus"], commit=(run["git"] or {}).get("commit", "unknown")[:10],
                repeats=suite["repeats"],
            ),
            _table(["method", "ARUC", "calibrated", "AUC", "R at U = 1", "construct"], measured),
            CLAIMS,
            _table(["method", "claim"], claims),
        ]
    )  # fmt: skip


def _measured(method: dict[str, Any]) -> list[str]:
    s = method["summary"]
    return [
        _link(method["method"]),
        *(f"{s[k]:.3f} ± {s[f'{k}_ci']:.3f}" for k in ("aruc", "aruc_calibrated", "auc")),
        f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
        f"{s['construct_seconds']:.2f} s",
    ]


def _link(name: str) -> str:
    """A method's name, linked to the README of the plugin that brings it."""
    offers = Registry.load().methods
    plugin = offers[name].source.split()[0].removeprefix("fpbench-") if name in offers else ""
    built_in = not (DOCS.parent / "plugins" / plugin / "README.md").is_file()
    return name if built_in else f"[{name}](../plugins/{plugin}/README.md)"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def readme() -> str:
    """The text of README.md, with quickstart's table as the terminal shows it."""
    data = json.loads((DOCS / "results" / "quickstart.json").read_text())
    console = Console(file=io.StringIO(), width=100, highlight=False, record=True)
    show_methods(data, console)
    table = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    before, _, rest = (DOCS.parent / "README.md").read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n```text\n{table}\n```\n{END}{after}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        take(Path(sys.argv[2]))
    (DOCS / "methods.md").write_text(methods())
    (DOCS / "reproduction.md").write_text(reproduction())
    (DOCS.parent / "README.md").write_text(readme())
