"""The table of methods as plain rows, and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

HEAD = ("method", "ARUC", "calibrated", "AUC", "R at U = 1", "TPR at 5 % FPR", "behind the first",
        "construct", "verify", "queries")  # fmt: skip
NUMBERS = (
    "aruc", "aruc_ci", "aruc_calibrated", "aruc_calibrated_ci", "auc", "auc_ci",
    "robustness_at_full_uniqueness", "robustness_at_full_uniqueness_ci", "tpr_at_5_percent_fpr",
    "construct_seconds", "verify_seconds", "queries",
)  # fmt: skip


def shown(data: Mapping[str, Any]) -> list[list[str]]:
    """A row per method that has results, under HEAD, for people.

    "behind the first" is the difference in calibrated ARUC to the method that has most of it, with
    the 95 % interval of the paired bootstrap.
    """
    done = [m for m in data["methods"] if m["summary"]]
    if not done:
        return []
    leader = max(done, key=lambda m: m["summary"]["aruc_calibrated"])["method"]
    return [[m["method"], *_cells(m["summary"]), _behind(data, leader, m["method"]),
             *_costs(m["summary"])] for m in done]  # fmt: skip


def _cells(s: Mapping[str, Any]) -> list[str]:
    return [
        *(_interval(s[name], s[f"{name}_ci"]) for name in ("aruc", "aruc_calibrated", "auc")),
        f"{100 * s['robustness_at_full_uniqueness']:.0f} %",
        f"{100 * s['tpr_at_5_percent_fpr']:.0f} %",
    ]


def _costs(s: Mapping[str, Any]) -> list[str]:
    return [f"{s['construct_seconds']:.2f} s", f"{s['verify_seconds']:.2f} s", str(s["queries"])]


def _interval(value: float, half: float | None) -> str:
    return f"{value:.3f}" if half is None else f"{value:.3f} ± {half:.3f}"


def _behind(data: Mapping[str, Any], leader: str, method: str) -> str:
    for pair in data["comparisons"]["aruc_calibrated"]:
        if {pair["first"], pair["second"]} == {leader, method} and leader != method:
            sign = 1 if pair["first"] == leader else -1
            low, high = sorted((sign * pair["low"], sign * pair["high"]))
            return f"{sign * pair['value']:.3f} ({low:.3f} to {high:.3f})"
    return ""


def markdown(data: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    lines = [HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *shown(data)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def latex(data: Mapping[str, Any]) -> str:
    """The table in LaTeX, for the booktabs package."""
    rows = [" & ".join(map(_tex, line)) + r" \\" for line in shown(data)]
    return "\n".join(
        [
            r"\begin{tabular}{l" + "r" * (len(HEAD) - 1) + "}", r"\toprule",
            " & ".join(map(_tex, HEAD)) + r" \\", r"\midrule", *rows, r"\bottomrule",
            r"\end{tabular}", "",
        ]
    )  # fmt: skip


def _tex(cell: str) -> str:
    for plain, escaped in (
        ("\\", r"\textbackslash "), ("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("#", r"\#"),
        ("$", r"\$"), ("{", r"\{"), ("}", r"\}"), ("~", r"\textasciitilde "),
        ("^", r"\textasciicircum "), ("±", r"$\pm$"),
    ):  # fmt: skip
        cell = cell.replace(plain, escaped) if plain != "\\" else cell.replace("\\", "\0")
    return cell.replace("\0", r"\textbackslash ")


def as_csv(data: Mapping[str, Any]) -> str:
    """The methods' numbers, unrounded: a row per method."""
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(["method", *NUMBERS])
    for method in data["methods"]:
        summary: Mapping[str, Any] = method["summary"] or {}
        rows.writerow([method["method"], *(summary.get(name) for name in NUMBERS)])
    return out.getvalue()
