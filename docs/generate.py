"""Writes docs/methods.md, docs/reproduction.md and the README's table, from the installed methods
and docs/results/.

python docs/generate.py                          write the documents anew
python docs/generate.py take RUN/results.json    keep a run's results, without trials, for documents

Several runs of suites/paper/settings.yaml, one for each zoo, are kept together: take FILE FILE
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fpbench.api.results import MethodRecord, RunRecord, Summary, percent, with_interval
from fpbench.api.scenario import INPUT_KINDS
from fpbench.engine.registry import Registry
from fpbench.reporting.tables import show_methods
from fpbench.testing.toys import TOYS

sys.path.insert(0, str(Path(__file__).parent))
import settings
from reproduction import Kept, kept, reproduction
from settings import table

DOCS = Path(__file__).parent

HEAD = """\
# Methods

Written by `docs/generate.py` from the installed methods; do not edit. `fpbench describe NAME` shows
a method's settings and where they come from; each plugin's README says what it is weak against.

What it takes:

"""

MEASURED = """
What came out in `{suite}.yaml`, on data `{scenario}`, {device} ({cpus} cores), commit {commit},
{repeats} repeats: mean and {interval}.
What the numbers mean: [results.md](results.md). A method whose map to [0, 1] leaves little room has
a low ARUC though it ranks well: read the calibrated one and AUC beside it.

"""

BEGIN, END = "<!-- written by docs/generate.py -->", "<!-- until here -->"
"""In README.md, around what is written."""

CLAIMS = """
What the papers claim, on their own zoos:

"""


def take(files: Sequence[Path]) -> None:
    """Keep what documents are made from: everything but single models, trials and the machine."""
    records = [RunRecord.of(json.loads(file.read_text()), file) for file in files]
    if records[0].suite.name == settings.SUITE:
        settings.keep(records)
        return
    found = Kept.of(records[0].as_json(), files[0])
    text = json.dumps(found.as_json()) + "\n"
    (DOCS / "results" / f"{found.suite.name}.json").write_text(text)


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
        kinds = (
            "any" if method.input_kinds == INPUT_KINDS else ", ".join(sorted(method.input_kinds))
        )
        traits.append([_link(name), method.paper, ", ".join(dict.fromkeys(tasks)), levels, kinds,
                       str(method.n_queries), ensemble])  # fmt: skip
        if method.claim:
            claims.append([_link(name), method.claim])

    found = quickstart()
    run, suite = found.run, found.suite
    measured = [_measured(m, m.summary) for m in found.methods if m.summary and m.name in offers]
    return "".join(
        [
            HEAD,
            table(
                ["method", "paper", "tasks", "access", "inputs", "queries", "needs an ensemble"],
                traits,
            ),
            MEASURED.format(
                suite=suite.name, scenario=found.scenario.name, device=run.device,
                cpus=run.cpus, commit=run.commit, repeats=suite.repeats,
                interval=next(m.summary.interval_over for m in found.methods if m.summary),
            ),
            table(["method", "ARUC", "calibrated", "AUC", "R at U = 1", "construct"], measured),
            CLAIMS,
            table(["method", "claim"], claims),
            settings.section(tried) if (tried := settings.kept()) else "",
        ]
    )  # fmt: skip


def quickstart() -> Kept:
    """Return the kept results of the run that README.md and docs/methods.md show."""
    found = kept("quickstart")
    if found is None:
        raise FileNotFoundError("expected docs/results/quickstart.json; keep a run of it: take")
    return found


def _measured(method: MethodRecord, s: Summary) -> list[str]:
    return [
        _link(method.method),
        with_interval(s.aruc, s.aruc_ci),
        with_interval(s.aruc_calibrated, s.aruc_calibrated_ci),
        with_interval(s.auc, s.auc_ci),
        percent(s.robustness_at_full_uniqueness, s.robustness_at_full_uniqueness_ci),
        f"{s.construct_seconds:.2f} s",
    ]


def _link(name: str) -> str:
    """A method's name, linked to the README of the plugin that brings it."""
    offers = Registry.load().methods
    plugin = offers[name].source.split()[0].removeprefix("fpbench-") if name in offers else ""
    built_in = not (DOCS.parent / "plugins" / plugin / "README.md").is_file()
    return name if built_in else f"[{name}](../plugins/{plugin}/README.md)"


def readme() -> str:
    """The text of README.md, with quickstart's table as the terminal shows it."""
    found = quickstart()
    console = Console(file=io.StringIO(), width=100, highlight=False, record=True)
    show_methods(found.methods, found.comparisons, console)
    table = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    before, _, rest = (DOCS.parent / "README.md").read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n```text\n{table}\n```\n{END}{after}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["take"]:
        take([Path(file) for file in sys.argv[2:]])
    (DOCS / "methods.md").write_text(methods())
    (DOCS / "reproduction.md").write_text(reproduction())
    (DOCS.parent / "README.md").write_text(readme())
