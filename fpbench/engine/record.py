"""Write a finished run to disk: results.json, suspects.csv, errors, checksums."""

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
    DEFAULT_FPR,
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
from .environment import device_name, installed_versions
from .plan import Plan
from .suite import Variant, Zoo


def record(
    plan: Plan, results: Sequence[Result], failures: Mapping[str, str], twins: Mapping[str, str],
    *, store: Store, folder: Path, started: datetime, seconds: float, device: str,
) -> RunRecord:  # fmt: skip
    """Write a run's results into its folder and return them.

    failures: by digest, why a model could not be made.
    twins:    by the digest of a suspect that was left out, that of the one with the same weights.
    """
    suite = plan.suite
    run_record = RunRecord(
        run=RunFacts(
            id=folder.name,
            started=started,
            seconds=round(seconds, 3),
            device=device_name(device),
            threads=torch.get_num_threads(),
            processor=platform.processor() or platform.machine(),
            cpus=os.cpu_count(),
            platform=platform.platform(),
            versions={"python": platform.python_version(), **installed_versions()},
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
            fpr=suite.fpr,
            weigh=suite.weigh,
        ),
        scenario=ScenarioFacts(
            name=suite.scenario.name,
            version=suite.scenario.version,
            fields=fields_as_json(suite.scenario),
            data=suite.scenario.summary,
        ),
        targets=tuple(zoo.target.digest for zoo in suite.zoos),
        models=tuple(
            _model_record(recipe, zoo, plan, store) for zoo in suite.zoos for recipe in zoo.models
        ),
        methods=tuple(_method_record(variant, plan, results) for variant in suite.methods),
        comparisons=compare_methods([r for r in results if not r.error], weigh=suite.weigh),
        trials=tuple(map(_trial_record, results)),
        failures=failures,
        twins=twins,
    )
    files = {
        "suite.yaml": suite.source.text.encode(),
        "suspects.csv": _suspects_csv(run_record).encode(),
        "results.json": json.dumps(run_record.as_json(), indent=1, allow_nan=False).encode(),
    }
    for name, text in _error_texts(run_record):
        write(folder / "errors" / f"{name}.txt", text.encode())
    sums = "".join(f"{sha256(content)}  {name}\n" for name, content in files.items())
    # results.json comes last: a folder with this file is complete.
    for name, content in {"SHA256SUMS": sums.encode(), **files}.items():
        write(folder / name, content)
    return run_record


def _model_record(recipe: Recipe, zoo: Zoo, plan: Plan, store: Store) -> ModelRecord:
    made = store.made(recipe, plan.suite.scenario) or {}
    return ModelRecord(
        digest=recipe.digest,
        name=str(recipe),
        kind="target" if recipe is zoo.target else recipe.kind,
        positive=recipe.descends_from(zoo.target),
        arch=recipe.arch,
        utility=made.get("utility"),
        seconds=made.get("seconds"),
        device=made.get("device"),
        weights_sha256=made.get("weights_sha256"),
        zoo=zoo.seed,
    )


def _trial_record(result: Result) -> TrialRecord:
    trial = result.trial
    return TrialRecord(
        method=trial.label,
        zoo=trial.zoo,
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
            (step, round(second, 4), float(f"{loss:.6g}")) for step, second, loss in result.losses
        ),
        threads=result.threads,
        cached=result.cached,
        error=result.error,
    )


def _method_record(variant: Variant, plan: Plan, results: Sequence[Result]) -> MethodRecord:
    own = [r for r in results if r.trial.label == variant.label]
    good = [r for r in own if not r.error]
    return MethodRecord(
        method=variant.label,
        name=variant.method.name,
        source=variant.source,
        fields=fields_as_json(variant.method),
        ensemble=variant.ensemble,
        access=str(own[0].trial.access) if own else None,
        refusal=plan.refusals.get(variant.label),
        errors=tuple(r.error for r in own if r.error),
        summary=summarise(good, fpr=plan.suite.fpr or DEFAULT_FPR, weigh=plan.suite.weigh)
        if good
        else None,
    )


def _error_texts(run_record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield a file name and a text for each trial that failed and each model that was not made."""
    for i, trial in enumerate(run_record.trials):
        if trial.error:
            label = re.sub(r"[^A-Za-z0-9_-]+", "-", trial.method)[:60]
            yield f"{i}-{label}-{trial.repeat}", trial.error
    for digest, reason in run_record.failures.items():
        yield f"model-{digest[:12]}", reason


def _suspects_csv(run_record: RunRecord) -> str:
    """Return the text of suspects.csv: one row per method, zoo, repeat and suspect."""
    models = {model.digest: model for model in run_record.models}
    measures = list(next((model.utility for model in run_record.models if model.utility), {}))
    out = io.StringIO()
    rows = csv.writer(out)
    summaries = {method.method: method.summary for method in run_record.methods}
    rows.writerow(
        ["method", "zoo", "repeat", "suspect", "kind", "positive", "called", "arch",
         "matching_rate", "calibrated_rates", "p_values", "binomial_p_values", *measures, "digest"]
    )  # fmt: skip
    for trial in run_record.trials:
        summary = summaries[trial.method]
        for digest, rate in trial.matching_rates.items():
            model = models[digest]
            called = summary.calls(trial, digest) if summary else None
            columns = (trial.calibrated_rates, trial.p_values, trial.binomial_p_values)
            rows.writerow(
                [trial.method, trial.zoo, trial.repeat, model.name, model.kind,
                 int(model.positive), None if called is None else int(called), model.arch, rate,
                 *(column.get(digest) for column in columns),
                 *((model.utility or {}).get(measure) for measure in measures), digest]
            )  # fmt: skip
    return out.getvalue()


def git_revision(folder: Path) -> GitRevision | None:
    """Return the commit that is checked out in a folder, and whether files differ from it; None if
    git does not know the folder."""

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


SAMPLES = 8
"""Pictures per model in samples.npz."""

log = logging.getLogger("fpbench")


def keep_samples(
    plan: Plan, failed: Collection[str], *, store: Store, folder: Path, device: str
) -> None:
    """Write samples.npz into a run's folder if the outputs of its models are pictures.

    The models are those of the first zoo that has a target. The file has two arrays. rows (r, 2)
    are a kind, and the model that represents it. images (r, SAMPLES, height, width) or (r, SAMPLES,
    height, width, 3) are bytes. An error is logged in one line and not raised, because the results
    are on disk already.

    failed: digests of models that could not be made.
    """
    scenario = plan.suite.scenario
    zoo = next((zoo for zoo in plan.suite.zoos if zoo.target.digest not in failed), None)
    if zoo is None:
        return
    kinds: dict[str, list[Recipe]] = {"target": [zoo.target]}
    for recipe in zoo.models[1:]:
        if recipe.digest not in failed:
            kinds.setdefault(recipe.kind, []).append(recipe)
    # The middle model of a kind, because suites mostly list a kind from mild to severe.
    chosen = {kind: members[len(members) // 2] for kind, members in kinds.items()}
    try:
        if scenario.pictures(torch.zeros(1, *scenario.output_shape)) is None:
            return  # no need to load data and models
        inputs = scenario.data("test").inputs[:SAMPLES].to(device)
        images = []
        for recipe in chosen.values():
            with torch.no_grad():
                output = store.load(recipe, scenario, torch.device(device))(inputs)
            if (pictures := scenario.pictures(output)) is None:
                return
            images.append((255 * pictures.clamp(0, 1)).round().byte().cpu().numpy())
        rows = [(kind, str(recipe).split(" > ")[-1]) for kind, recipe in chosen.items()]
        file = io.BytesIO()
        np.savez_compressed(file, rows=np.array(rows), images=np.stack(images))
        write(folder / "samples.npz", file.getvalue())
    except Exception as error:
        log.warning("no samples: %s: %s", type(error).__name__, error)
