"""What the commands share: plugins and a suite loaded, a device, an executor, a folder.

Imports are inside, so that help waits for none of them.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import process

if TYPE_CHECKING:
    from .engine.registry import Registry
    from .engine.suite import Suite


def registry(plugins: tuple[Path, ...]) -> Registry:
    """Every plugin that is installed, and some loose files."""
    from .engine.registry import Registry

    return Registry.load(plugins)


def load(
    suite: Path, plugins: tuple[Path, ...], overrides: tuple[str, ...], only: tuple[str, ...]
) -> tuple[Registry, Suite]:
    """A suite and the plugins it is read against."""
    from .engine.suite import Suite

    found = registry(plugins)
    return found, Suite.load(suite, found, overrides=overrides, only=only)


def additions(methods: tuple[str, ...]) -> tuple[str, ...]:
    """The overrides that add methods to a suite: what `--with` stands for."""
    from .engine.override import addition

    return tuple(map(addition, methods))


def device(device: str | None) -> str:
    """The device asked for, if it is there; else the first GPU, else the CPU."""
    import torch

    from .api.errors import ResourceError

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ResourceError(
            f"--device {device}: expected a device that is there: {reason}"
        ) from None
    return device


def devices(names: str | None) -> list[str]:
    """The devices asked for, `cuda:0,cuda:1`, if all are there; else the one of `device`."""
    from .api.errors import SuiteError

    found = [device(name.strip()) for name in names.split(",")] if names else [device(None)]
    if len(found) > len(set(found)):
        raise SuiteError(f"expected every device once, got {names}", "--device")
    return found


def executor(
    registry: Registry, name: str | None, devices: list[str], *, workers: int | None,
    limit: float | None, plugins: tuple[Path, ...],
) -> Any:  # fmt: skip
    """Who does the work: by default this very process, if it can do what is asked.

    Raises SuiteError for a name that nobody answers to, and for what `inline` cannot do.
    """
    from .api.errors import SuiteError

    beyond = [
        option
        for option, given in (
            ("--workers", workers), ("--limit", limit), ("--device", len(devices) > 1)
        )
        if given
    ]  # fmt: skip
    name = name or ("local" if beyond else "inline")
    if name == "inline" and beyond:
        raise SuiteError(
            "expected nothing beyond one device and no limit of inline, which works in this very "
            "process; leave --executor out, or say --executor local",
            beyond[0],
        )
    setup = partial(ready, tuple(file.absolute() for file in plugins))
    found = registry.manager.hook.fpbench_executor(
        name=name, devices=devices, workers=workers, setup=setup
    )
    if found is None:
        raise SuiteError(f"no executor {name!r}; expected inline, local or ray", "--executor")
    return found


@cache
def ready(plugins: tuple[Path, ...]) -> None:
    """Make another process of a run like the run's own: loose plugins, arithmetic."""
    from .engine.registry import Registry
    from .engine.tuning import tune

    process.log_to_stderr()
    tune()  # as `run` does
    Registry.load(plugins, found=())


def new_folder(parent: Path) -> Path:
    """runs/<suite>/<id>: ids sort by time and never collide."""
    import secrets
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{secrets.token_hex(2)}"
