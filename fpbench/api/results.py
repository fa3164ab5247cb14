"""What a run found in the end, for Python, notebooks and reporters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import did_you_mean

if TYPE_CHECKING:
    from .work import Result


@dataclass(frozen=True, repr=False)
class Report:
    """Everything a run found; a notebook shows it as a table.

    data:    what results.json holds, under its schema.
    results: the trials; none where the run was read from its folder.
    """

    suite: str
    folder: Path
    data: Mapping[str, Any]
    results: tuple[Result, ...] = ()

    @property
    def failed(self) -> bool:
        """True when a model or a trial failed."""
        return bool(self.data["failures"]) or any(m["errors"] for m in self.data["methods"])

    @property
    def methods(self) -> list[str]:
        """The labels of all methods, those that declined or failed included."""
        return [m["method"] for m in self.data["methods"]]

    def summary(self, method: str) -> dict[str, Any]:
        """A method's metrics: means over the repeats, and `..._ci` the half-widths of their 95 %
        intervals (None for one repeat). Empty if it has no result: `self.why_not(method)`.

        Raises KeyError for a method that this run does not have, as do the others.
        """
        return dict(self._entry(method)["summary"] or {})

    def why_not(self, method: str) -> str | None:
        """Why a method declined or failed, or None."""
        entry = self._entry(method)
        reasons = [entry["refusal"], *(e.strip().splitlines()[-1] for e in entry["errors"])]
        return next((str(reason) for reason in reasons if reason), None)

    def curves(self, method: str) -> dict[str, list[float]]:
        """By "rho", "robustness" and "uniqueness", 101 numbers each; empty without a result."""
        s = self.summary(method)
        if not s:
            return {}
        steps = len(s["robustness"]) - 1
        rho = [step / steps for step in range(steps + 1)]
        return {"rho": rho, **{name: list(s[name]) for name in ("robustness", "uniqueness")}}

    def rates(self, method: str) -> list[dict[str, Any]]:
        """A row per repeat and judged suspect: repeat, suspect, kind, positive, matching_rate,
        calibrated_rate, p_value."""
        self._entry(method)
        models = {model["digest"]: model for model in self.data["models"]}
        return [
            {
                "repeat": trial["repeat"],
                "suspect": models[digest]["name"],
                "kind": models[digest]["kind"],
                "positive": models[digest]["positive"],
                "matching_rate": rate,
                "calibrated_rate": trial["calibrated_rates"].get(digest),
                "p_value": trial["p_values"].get(digest),
            }
            for trial in self.data["trials"]
            if trial["method"] == method
            for digest, rate in trial["matching_rates"].items()
        ]

    def _entry(self, method: str) -> Mapping[str, Any]:
        for entry in self.data["methods"]:
            if entry["method"] == method:
                found: Mapping[str, Any] = entry
                return found
        raise KeyError(f"no method {method!r} in this run; {did_you_mean(method, self.methods)}")

    def __repr__(self) -> str:
        return f"<Report of {self.suite}: {', '.join(self.methods)}; {self.folder}>"

    def _repr_html_(self) -> str:
        """The table of methods, as a notebook shows it."""
        head = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "construct", "queries")
        rows = [[method, *_cells(self.summary(method), self.why_not(method))]
                for method in self.methods]  # fmt: skip
        lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        return (
            f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>"
            + "".join(f"<tr>{line}</tr>" for line in lines)
            + f"</tbody></table><p>{escape(str(self.folder))}</p>"
        )


def _cells(s: Mapping[str, Any], why_not: str | None) -> list[str]:
    if not s:
        return [why_not or "no result"]
    intervals = [
        f"{s[key]:.3f}" + (f" ± {s[f'{key}_ci']:.3f}" if s[f"{key}_ci"] is not None else "")
        for key in ("aruc", "aruc_calibrated", "auc")
    ]
    return [*intervals, f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
            f"{s['construct_seconds']:.2f} s", str(s["queries"])]  # fmt: skip
