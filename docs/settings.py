"""The settings that were tried for each method, from docs/results/settings.json."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pydantic import BaseModel, TypeAdapter
from reproduction import RESULTS, KeptRun, KeptSuite

from fpbench.api.fields import fields_as_json
from fpbench.api.results import RunRecord
from fpbench.engine.registry import Registry

SUITE = "settings"
"""The name of the suite that tries settings."""

ZOO = 101
"""The seed of that suite's zoo, if no override gives another."""

TIE = 0.01
"""Two AUCs that differ by at most this count as equal."""

RULE = """
## How settings are chosen

For each method, `suites/paper/settings.yaml` tries {count} settings, the same number for all:
values from the papers, from public implementations and from earlier measurements.
It tries them on zoos of `quickstart` with the seeds {zoos}, {repeats} repeats each. Results are
reported on other zoos (seeds 0, 1 and 2), and settings are never chosen by these. The rule is the
same for all:

1. Compute each setting's AUC, ARUC and calibrated ARUC: means over both zoos and all repeats.
2. Settings whose AUC is within {tie} of the best AUC are equally good.
3. Of these, the one with the largest mean of ARUC and calibrated ARUC is the method's default.

AUC comes first because it does not depend on how a method maps its evidence to [0, 1]. The controls
`akh` and `random` have no settings to choose, and `ibsf` is a control that should find no theft.
For MetaV the rule chose queries that start from public data; the suites that reproduce the paper
set `data_share: 0`. The settings of its other rows in `skin-cpu` and `warfarin` were chosen on
other zoos of these scenarios, among more than {count}: [skin.md](skin.md) and
[warfarin.md](warfarin.md) list them all.

To repeat the choice, run `fpbench run suites/paper/settings.yaml`, and again with
`-o zoo.seed=102`. Stored trials are not repeated. Measured on {device} with commit {commit}; each
method's default is in bold.

"""


class Tried(BaseModel):
    """One setting of one method on one zoo, with its means over the repeats."""

    label: str
    method: str
    fields: dict[str, Any]
    auc: float
    aruc: float
    aruc_calibrated: float


class SettingsRun(BaseModel):
    """One run of the suite of settings, without trials, models and curves."""

    run: KeptRun
    suite: KeptSuite
    tried: tuple[Tried, ...]

    @classmethod
    def of(cls, record: RunRecord) -> SettingsRun:
        """Return the parts of a run's record that the documents show."""
        given = record.as_json()
        tried = [
            {"label": m.method, "method": m.name, "fields": m.fields, "auc": m.summary.auc,
             "aruc": m.summary.aruc, "aruc_calibrated": m.summary.aruc_calibrated}
            for m in record.methods if m.summary
        ]  # fmt: skip
        return cls.model_validate({"run": given["run"], "suite": given["suite"], "tried": tried})


RUNS = TypeAdapter(tuple[SettingsRun, ...])


@dataclass(frozen=True)
class Setting:
    """One setting of one method, with its means over all zoos and repeats.

    is_default: whether these are the method's default values today.
    """

    label: str
    auc: float
    aruc: float
    aruc_calibrated: float
    is_default: bool


def keep(records: Sequence[RunRecord]) -> None:
    """Write docs/results/settings.json from the runs of the suite of settings."""
    runs = tuple(map(SettingsRun.of, records))
    (RESULTS / f"{SUITE}.json").write_bytes(RUNS.dump_json(runs) + b"\n")


def kept() -> tuple[SettingsRun, ...]:
    """Return the kept runs of the suite of settings; none if there is no file."""
    file = RESULTS / f"{SUITE}.json"
    return RUNS.validate_json(file.read_bytes()) if file.is_file() else ()


def by_method(runs: Sequence[SettingsRun]) -> dict[str, list[Setting]]:
    """Return the settings tried for each method, in the order of the suite."""
    offers = Registry.load().methods
    found: dict[str, list[Setting]] = {}
    for label, tried in _by_label(runs).items():
        first = tried[0]
        if first.method not in offers:
            continue
        found.setdefault(first.method, []).append(
            Setting(
                label,
                auc=fmean(t.auc for t in tried),
                aruc=fmean(t.aruc for t in tried),
                aruc_calibrated=fmean(t.aruc_calibrated for t in tried),
                is_default=first.fields == fields_as_json(offers[first.method].cls()),
            )
        )
    return found


def _by_label(runs: Iterable[SettingsRun]) -> dict[str, list[Tried]]:
    rows: dict[str, list[Tried]] = {}
    for run in runs:
        for tried in run.tried:
            rows.setdefault(tried.label, []).append(tried)
    return rows


def choose(settings: Sequence[Setting]) -> Setting:
    """Return the best setting by the rule of docs/methods.md."""
    best = max(s.auc for s in settings)
    equal = [s for s in settings if s.auc >= best - TIE]
    return max(equal, key=lambda s: s.aruc + s.aruc_calibrated)


def section(runs: Sequence[SettingsRun]) -> str:
    """Return the rule, and a table of the settings tried for each method, as Markdown."""
    rows = []
    for settings in by_method(runs).values():
        chosen = choose(settings)
        for s in settings:
            name = f"**{s.label}**" if s.is_default else s.label
            scores = (f"{score:.3f}" for score in (s.auc, s.aruc, s.aruc_calibrated))
            rows.append([name, *scores, "best by the rule" if s is chosen else ""])
    first = runs[0]
    text = RULE.format(
        count=4,
        zoos=" and ".join(map(str, _zoos(runs))),
        repeats=first.suite.repeats,
        tie=TIE,
        device=first.run.device,
        commit=first.run.commit,
    )
    return text + table(["setting", "AUC", "ARUC", "calibrated", ""], rows)


def _zoos(runs: Sequence[SettingsRun]) -> list[int]:
    """Return the seeds of the zoos that the runs were on."""
    given = [o.removeprefix("zoo.seed=") for run in runs for o in run.suite.overrides]
    return sorted({ZOO, *(int(seed) for seed in given if seed.isdecimal())})


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
