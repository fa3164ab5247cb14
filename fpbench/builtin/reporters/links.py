"""Addresses inside MLflow's pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

CURVES = ("curve/robustness", "curve/uniqueness")


def charts(experiment: str, suite_run: str) -> str:
    """The chart page of one suite run: every method's curves, overlaid."""
    only = f"tags.`fpbench.suite_run` = '{suite_run}' and tags.`fpbench.kind` = 'method'"
    return f"/#/experiments/{experiment}/runs?compareRunsMode=CHART&searchFilter={quote(only, '')}"


def overlay(experiment: str, runs: Sequence[str]) -> str:
    """The page that draws both curves of all these runs on one axis."""
    query = {
        "runs": json.dumps(list(runs)),
        "metric": json.dumps(CURVES[0]),
        "experiments": json.dumps([experiment]),
        "plot_metric_keys": json.dumps(CURVES),
        "x_axis": "step",  # the only one that MLflow wants without quotes
        "plot_layout": "{}",
        "deselected_curves": "[]",
    }
    return "/#/metric?" + "&".join(f"{key}={quote(value, '')}" for key, value in query.items())
