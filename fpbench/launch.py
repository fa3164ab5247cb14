"""What the commands share: plugins and a suite loaded, a device, an executor, a folder.

Imports are inside, so that help waits for none of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from .engine.source import addition

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


def executor(registry: Registry, name: str, device: str) -> Any:
    """Who does the work. Raises SuiteError for a name that nobody answers to."""
    from .api.errors import SuiteError

    found = registry.manager.hook.fpbench_executor(name=name, devices=[device])
    if found is None:
        raise SuiteError(f"no executor {name!r}; expected inline", "--executor")
    return found


def new_folder(parent: Path) -> Path:
    """runs/<suite>/<id>: ids sort by time and never collide."""
    import secrets
    from datetime import UTC, datetime

    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return parent / f"{stamp}-{secrets.token_hex(2)}"
