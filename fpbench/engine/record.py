"""A finished run on disk: results.json, suspects.csv, errors, checksums."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import platform
import re
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from ..api.fields import fields_as_json
from ..api.recipe import Recipe
from ..api.results import (
    GitRevision,
    MethodRecord,
    ModelRecord,
    RunFacts,
    RunRecord,
    ScenarioFacts,
    SuiteFacts,
    TrialRecord,
)
from ..api.work import Result
from ..results.summary import compare_methods, compute_verdicts, summarise
from ..store.files import sha256, write
from ..store.store import Store
from .environment import device_name, everything_installed
from .plan import Plan
from .suite import Variant


def record(
    plan: Plan, results: Sequence[Result], failures: Mapping[str, str], *, store: Store,
    folder: Path, started: datetime, seconds: float, device: str,
) -> RunRecord:  # fmt: skip
    """Write a run's results into its folder and return them."""
    suite = plan.suite
    found = RunRecord(
        run=RunFacts(
            id=folder.name,
            started=started,
            seconds=round(seconds, 3),
            device=device_name(device),
            threads=torch.get_num_threads(),
            processor=platform.processor() or platform.machine(),
            cpus=os.cpu_count(),
            platform=platform.platform(),
            versions={"python": platform.python_version(), **everything_installed()},
            git=git_revision(Path.cwd()),
        ),
        suite=SuiteFacts(
            name=suite.name,
            file=suite.source.file,
            sha256=sha256(suite.source.text.encode()),
            text=suite.source.text,
            overrides=suite.overrides,
            api=str(suite.api),
            seed=suite.seed,
            repeats=suite.repeats,
            split=suite.split,
            stratify=suite.stratify,
        ),
        scenario=ScenarioFacts(
            name=suite.scenario.name,
            version=suite.scenario.version,
            fields=fields_as_json(suite.scenario),
            data=suite.scenario.summary,
        ),
        target=suite.target.digest,
        models=tuple(_model(recipe, plan, store) for recipe in plan.models),
        methods=tuple(_method(variant, plan, results) for variant in suite.methods),
        comparisons=compare_methods([r for r in results if not r.error]),
        trials=tuple(map(_trial, results)),
        failures=failures,
    )
    files = {
        "suite.yaml": suite.source.text.encode(),
        "suspects.csv": _suspects(found).encode(),
        "results.json": json.dumps(found.as_json(), indent=1, allow_nan=False).encode(),
    }
    for name, text in _errors(found):
        write(folder / "errors" / f"{name}.txt", text.encode())
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files.items())
    # The results come last: a folder with results.json has everything.
    for name, content in {"SHA256SUMS": sums.encode(), **files}.items():
        write(folder / name, content)
    return found


def _model(recipe: Recipe, plan: Plan, store: Store) -> ModelRecord:
    made = store.made(recipe, plan.suite.scenario) or {}
    target = plan.suite.target
    return ModelRecord(
        digest=recipe.digest,
        name=str(recipe),
        kind="target" if recipe is target else recipe.kind,
        positive=recipe.descends_from(target),
        arch=recipe.arch,
        utility=made.get("utility"),
        seconds=made.get("seconds"),
        device=made.get("device"),
        weights_sha256=made.get("weights_sha256"),
    )


def _trial(result: Result) -> TrialRecord:
    trial = result.trial
    return TrialRecord(
        method=trial.label,
        repeat=trial.repeat,
        seed=trial.seed,
        ensemble=tuple(r.digest for r in trial.ensemble),
        matching_rates=result.matching_rates,
        calibration_rates=result.calibration_rates,
        **compute_verdicts(result)._asdict(),
        queries=result.queries,
        construct_seconds=result.construct_seconds,
        construct_cpu_seconds=result.construct_cpu_seconds,
        verify_seconds=result.verify_seconds,
        verify_cpu_seconds=result.verify_cpu_seconds,
        device=result.device,
        losses=tuple(
            (step, round(at, 4), float(f"{loss:.6g}")) for step, at, loss in result.losses
        ),
        threads=result.threads,
        cached=result.cached,
        error=result.error,
    )


def _method(variant: Variant, plan: Plan, results: Sequence[Result]) -> MethodRecord:
    mine = [r for r in results if r.trial.label == variant.label]
    good = [r for r in mine if not r.error]
    return MethodRecord(
        method=variant.label,
        name=variant.method.name,
        source=variant.source,
        fields=fields_as_json(variant.method),
        ensemble=variant.ensemble,
        access=str(mine[0].trial.access) if mine else None,
        refusal=plan.refusals.get(variant.label),
        errors=tuple(r.error for r in mine if r.error),
        summary=summarise(good) if good else None,
    )


def _errors(found: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield why trials failed and models were not made, by names that files may have."""
    for i, trial in enumerate(found.trials):
        if trial.error:
            label = re.sub(r"[^A-Za-z0-9_-]+", "-", trial.method)[:60]
            yield f"{i}-{label}-{trial.repeat}", trial.error
    for digest, reason in found.failures.items():
        yield f"model-{digest[:12]}", reason


def _suspects(found: RunRecord) -> str:
    """Return suspects.csv: one row per suspect, method and repeat."""
    models = {model.digest: model for model in found.models}
    measures = list(next((model.utility for model in found.models if model.utility), {}))
    out = io.StringIO()
    rows = csv.writer(out)
    rows.writerow(
        ["method", "repeat", "suspect", "kind", "positive", "arch", "matching_rate",
         "calibrated_rates", "p_values", "binomial_p_values", *measures, "digest"]
    )  # fmt: skip
    for trial in found.trials:
        for digest, rate in trial.matching_rates.items():
            model = models[digest]
            verdict = (trial.calibrated_rates, trial.p_values, trial.binomial_p_values)
            rows.writerow(
                [trial.method, trial.repeat, model.name, model.kind, int(model.positive),
                 model.arch, rate, *(by.get(digest) for by in verdict),
                 *((model.utility or {}).get(measure) for measure in measures), digest]
            )  # fmt: skip
    return out.getvalue()


def git_revision(folder: Path) -> GitRevision | None:
    """Return the commit that is checked out in a folder, and whether files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True, text=True, check=True, timeout=10,
        ).stdout.strip()  # fmt: skip

    try:
        return GitRevision(
            commit=git("rev-parse", "HEAD"), dirty=bool(git("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        return None


CODES = 8

log = logging.getLogger("fpbench")


def keep_samples(
    plan: Plan, gone: Collection[str], *, store: Store, folder: Path, device: str
) -> None:
    """Write samples.npz into a run's folder, if its models' outputs are pictures.

    rows (r, 2): a kind, and the model that stands for it; images (r, CODES, height, width) or
    (r, CODES, height, width, 3), bytes. The results are on disk: what goes wrong costs one line.

    gone: digests of models that could not be made.
    """
    scenario = plan.suite.scenario
    if plan.suite.target.digest in gone:
        return
    kinds: dict[str, list[Recipe]] = {"target": [plan.suite.target]}
    for recipe in plan.models[1:]:
        if recipe.digest not in gone:
            kinds.setdefault(recipe.kind, []).append(recipe)
    # The middle of a kind, whose members a suite mostly sweeps from mild to severe.
    chosen = {kind: members[len(members) // 2] for kind, members in kinds.items()}
    try:
        if scenario.pictures(torch.zeros(1, *scenario.output_shape)) is None:
            return  # before data and models are loaded for nothing
        codes = scenario.data("test").inputs[:CODES].to(device)
        images = []
        for recipe in chosen.values():
            with torch.no_grad():
                output = store.load(recipe, scenario, torch.device(device))(codes)
            if (pictures := scenario.pictures(output)) is None:
                return
            images.append((255 * pictures.clamp(0, 1)).round().byte().cpu().numpy())
        rows = [(kind, str(recipe).split(" > ")[-1]) for kind, recipe in chosen.items()]
        file = io.BytesIO()
        np.savez_compressed(file, rows=np.array(rows), images=np.stack(images))
        write(folder / "samples.npz", file.getvalue())
    except Exception as error:
        log.warning("no samples: %s: %s", type(error).__name__, error)
