"""A verdict as a page that an expert witness can attach, and as PDF."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..api.errors import ResourceError

HERE = Path(__file__).parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def render_verdict(verdict: Mapping[str, Any]) -> str:
    """Return a verdict as one HTML page without scripts."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(autoescape=True, loader=FileSystemLoader(HERE))
    fingerprint, suspect = verdict["fingerprint"], verdict["suspect"]
    low, high = verdict["left_out"]["interval"]
    journal, commitment = verdict["journal"], verdict["commitment"]
    asked = {
        "queries": verdict["queries"],
        "answers": f"{verdict['access']} of each query",
        "suspect": suspect.get("url") or suspect.get("file"),
        "asked": verdict["asked"] if journal is None else " to ".join(journal["times"]),
        "utility": ", ".join(f"{k} {x:.3f}" for k, x in (suspect["utility"] or {}).items())
        or "unknown",
    }
    left_out = 100 * verdict["left_out"]["false_positive_rate"]
    result = {
        "matching rate": f"{verdict['matching_rate']:.3f}",
        "threshold": f"{verdict['threshold']:.3f}, for "
        f"{100 * verdict['false_positive_rate']:.3g} % false positives",
        "p-value": f"{verdict['p_value']:.3f}",
        "strength": verdict["strength"] or "",
        "with a making left out": f"{left_out:.1f} % judged copies (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f} %)",
    }
    custody = {
        "fingerprint, sha256": fingerprint["sha256"],
        "committed": commitment["made"] if commitment else "there was no commitment",
        "commitment signed by": (commitment or {}).get("public_key", "nobody"),
        "target's weights, sha256": fingerprint["target"]["weights_sha256"],
        "suspect, sha256": suspect.get("sha256") or "an API",
        "journal's last hash": journal["head"] if journal else "a model file has no journal",
        "verdict made": verdict["made"],
        "verdict signed by": verdict.get("public_key", "nobody"),
    }
    return environment.get_template("verdict.html.jinja").render(
        v=verdict, summary=verdict["summary"], asked=asked.items(),
        result=[(key, value) for key, value in result.items() if value], custody=custody.items(),
        makings=_makings(verdict), dots=_dots(verdict), threshold=_x(verdict["threshold"]),
        suspect=_x(verdict["matching_rate"]),
        ticks=[{"x": _x(t / 5), "text": f"{t / 5:.1f}"} for t in range(6)],
        versions=", ".join(f"{k} {x}" for k, x in verdict["versions"].items()),
    )  # fmt: skip


def _x(rate: float) -> float:
    """Return the place of a rate on the chart's axis."""
    return round(120 + 490 * rate, 1)


def _dots(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = {True: 30, False: 75}
    return [
        {
            "x": _x(model["rate"]),
            "y": rows[model["positive"]] + (i * 7) % 24 - 12,  # spread, so that few are hidden
            "group": "copy" if model["positive"] else "other",
        }
        for i, model in enumerate(verdict["reference"])
    ]


def _makings(verdict: Mapping[str, Any]) -> list[dict[str, Any]]:
    rates: dict[str, list[float]] = {}
    for model in verdict["reference"]:
        if not model["positive"]:
            rates.setdefault(model["making"], []).append(model["rate"])
    order = sorted(rates, key=lambda making: -max(rates[making]))
    return [
        {"name": name, "models": len(rates[name]), "highest": f"{max(rates[name]):.3f}"}
        for name in order
    ]


def print_pdf(page: Path, pdf: Path) -> None:
    """Print a page by a Chromium on this machine. Raises ResourceError if there is none."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise ResourceError(
            f"expected one of {', '.join(BROWSERS)} to print a PDF, found none; print {page} by "
            "your browser"
        )
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    done = subprocess.run(  # noqa: S603 - a browser of this machine, and our own page
        [browser, "--headless", *root, "--no-pdf-header-footer", f"--print-to-pdf={pdf}",
         page.resolve().as_uri()], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode or not pdf.is_file():
        raise ResourceError(f"{browser} printed no PDF: {done.stderr.strip()[-200:]}")
