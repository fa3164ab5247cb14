"""The commands for a model's owner: fingerprint, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from .. import session
from . import completion, options, process
from .options import FILE, PATH


@click.command()
@click.argument("case", type=PATH, shell_complete=completion.suites)
@click.option("--out", type=FILE, required=True,
              help="Where the fingerprint goes.")  # fmt: skip
@click.option("--false-positive-rate", default=0.05, show_default=True, metavar="SHARE",
              help="Share of independent models that may be judged copies.")  # fmt: skip
@click.option("--method", "only", multiple=True, metavar="METHOD", shell_complete=completion.names,
              help="Methods to try, or `auto` for all that are installed; the best on your zoo is "
              "taken.  [default: those of CASE]")  # fmt: skip
@click.option("--combine", "rule", type=click.Choice(["mean", "least"]),
              help="Combine all methods: a suspect's rate is the mean, or the least, of theirs.  "
              "[default: take the best method]")  # fmt: skip
@click.option("--key", type=PATH, metavar="FILE",
              help="An Ed25519 private key that signs the commitment.")  # fmt: skip
@options.STORE
@options.DEVICE
@click.option("-o", "overrides", multiple=True, metavar="KEY=VALUE",
              help="Set a key of the case, such as api=label. Repeatable.")  # fmt: skip
@options.PLUGIN
@options.JSON
def fingerprint(
    case: Path, out: Path, false_positive_rate: float, only: tuple[str, ...],
    rule: Literal["mean", "least"] | None, key: Path | None, store_dir: Path, device: str | None,
    overrides: tuple[str, ...], plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Make a fingerprint of your own model. CASE is a suite with the target `given`.

    The zoo is built from your model, as in a run. The models that the method does not learn from
    calibrate the threshold. A case without `zoo:` gets a reference population of independent
    models of many makings. docs/verify.md explains every step.
    """
    click.get_current_context().with_resource(process.stoppable())
    from ..engine.run import Setting
    from ..owner.commitment import commit, private_key
    from ..owner.fingerprinting import make_fingerprint
    from ..owner.threshold import recognised
    from ..reporting.terminal import Terminal
    from ..store.store import Store

    signer = private_key(key)  # a key that does not fit is told before any work
    registry, suite = session.load_case(case, plugins, overrides, only)
    terminal = Terminal(as_json=as_json)
    registry.manager.register(terminal, "terminal")
    found = session.find_device(device)
    setting = Setting(
        store=Store(store_dir), folder=out.parent, hook=registry.manager.hook, device=found,
        executor=session.find_executor(registry, None, [found], workers=None, limit=None),
    )  # fmt: skip
    with terminal:
        meta = make_fingerprint(suite, setting, registry, out, false_positive_rate, rule)
    commitment = commit(out, meta, signer)
    if as_json:
        options.answer(meta)
        return
    calibration = meta["calibration"]
    threshold = calibration["threshold"]
    copies, of = recognised(calibration["models"], threshold["rate"])
    negatives = [model for model in calibration["models"] if not model["positive"]]
    utility = ", ".join(f"{k} {v:.3f}" for k, v in (meta["target"]["utility"] or {}).items())
    low, high = threshold["interval"]
    worst, share = threshold["worst_making"]
    click.echo(f"target       {meta['target']['name']}, {utility}")
    for tried in meta["tried"] if len(meta["tried"]) > 1 else []:
        result = tried["reason"] or (
            f"{tried['found']} of {tried['of']} known copies recognised, "
            f"{100 * tried['left_out']:.1f} % false positives with a making left out"
        )
        click.echo(f"tried        {tried['method']}: {result}")
    click.echo(f"method       {meta['method']['name']}")
    click.echo(
        f"threshold    {threshold['rate']:.3f} for {100 * threshold['false_positive_rate']:.3g} % "
        f"false positives, from {len(negatives)} independent models of "
        f"{len({model['making'] for model in negatives})} makings"
    )
    click.echo(
        f"left out     {100 * threshold['left_out']:.1f} % of the models of a making that was left "
        f"out are above the threshold (95 % interval {100 * low:.1f} to {100 * high:.1f} %); "
        f"worst {100 * share:.0f} %, {worst}"
    )
    click.echo(f"known copies {copies} of {of} are above it")
    click.echo(f"fingerprint  {out}")
    click.echo(f"commitment   {commitment}")


@click.command()
@click.argument("fingerprint_file", metavar="FINGERPRINT", type=PATH)
@click.argument("suspect")
@click.option("--arch", metavar="NAME", help="The suspect's architecture: the scenario's, "
              "torchvision:NAME, timm:NAME, transformers:NAME, or FILE.py:CALLABLE. @OUTPUT at its "
              "end names an output, also as onnx@OUTPUT.")  # fmt: skip
@click.option(
    "--adapter",
    type=PATH,
    metavar="FILE.yaml",
    help="The form of an API's requests and replies; or what a file's scores are.",
)
@click.option(
    "--labels-only", is_flag=True, help="Refuse a fingerprint that needs more than labels."
)
@click.option("--rate", default=0.0, metavar="N", help="Requests per second.  [default: no limit]")
@click.option("--budget", type=click.IntRange(min=1), metavar="N",
              help="Send at most N inputs to the API.  [default: twice the queries]")  # fmt: skip
@click.option("--answers", type=PATH, metavar="FILE",
              help="Where an API's answers are kept.  [default: beside the verdict]")  # fmt: skip
@click.option("--out", type=FILE, default="verdict.json",
              show_default=True, help="Where the verdict goes.")  # fmt: skip
@click.option("--key", type=PATH, metavar="FILE",
              help="An Ed25519 private key that signs the verdict.")  # fmt: skip
@options.PLUGIN
@options.JSON
def verify(
    fingerprint_file: Path, suspect: str, arch: str | None, adapter: Path | None,
    labels_only: bool, rate: float, budget: int | None, answers: Path | None, out: Path,
    key: Path | None, plugins: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Judge SUSPECT, a model file or the URL of a prediction API, by a fingerprint.

    The exit code is 0 for every verdict, copy or not.
    """
    from ..owner.suspects import Request
    from ..owner.verifying import verify as verify_suspect

    request = Request(
        arch=arch, adapter=adapter, labels_only=labels_only, rate=rate, budget=budget,
        answers=answers,
    )  # fmt: skip
    verdict = verify_suspect(
        fingerprint_file, suspect, out=out, request=request, key=key, plugins=plugins
    )
    if as_json:
        options.answer(verdict)
        return
    click.echo(verdict["sentence"])
    for note in verdict["notes"]:
        click.echo(f"note: {note}")
    click.echo(f"verdict      {out}")


@click.group()
def verdict() -> None:
    """Work with verdicts."""


@verdict.command()
@click.argument("verdict_file", metavar="VERDICT", type=PATH)
@click.option("--fingerprint", "file", type=PATH, metavar="FILE",
              help="Its fingerprint.  [default: beside the verdict, or where it was]")  # fmt: skip
@click.option("--public-key", type=PATH, metavar="FILE",
              help="The Ed25519 public key that must have signed.")  # fmt: skip
@click.option("--store", type=click.Path(path_type=Path, exists=True, file_okay=False),
              metavar="DIR", help="Rate the known models in this store again.")  # fmt: skip
@options.PLUGIN
def check(
    verdict_file: Path, file: Path | None, public_key: Path | None, store: Path | None,
    plugins: tuple[Path, ...],
) -> None:  # fmt: skip
    """Recompute VERDICT, a file or its folder, from the answers and the fingerprint.

    The suspect is not asked again. The exit code is 1 if something is wrong.
    """
    from ..owner.checking import check_verdict

    registry = session.load_plugins(plugins)
    checks = check_verdict(verdict_file, registry, fingerprint=file, signer=public_key, store=store)
    words = {True: "right", False: "WRONG", None: "not checked"}
    for found in checks:
        click.echo(f"{words[found.right]:<12} {found.name}: {found.text}")
    if any(found.right is False for found in checks):
        click.get_current_context().exit(1)


COMMANDS = (fingerprint, verify, verdict)
