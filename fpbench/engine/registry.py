"""Plugins in, names out."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from ..api import hooks
from ..api.errors import PluginError, did_you_mean
from ..api.fields import hints
from ..api.fingerprinter import Fingerprinter
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..api.text import clipped
from .contained import contained

GROUP = "fpbench"

C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Offer(Generic[C]):
    """A class that a plugin brings, and the distribution it came in."""

    cls: C
    source: str


@dataclass
class Registry:
    """Every scenario, recipe and method there is, by name; and every plugin that is broken.

    broken: by plugin name, why it did not load. Told to whoever asks for a name that is not
    there; nobody else is stopped.
    """

    manager: pluggy.PluginManager
    scenarios: dict[str, Offer[type[Scenario]]] = field(default_factory=dict)
    recipes: dict[str, Offer[type[Recipe]]] = field(default_factory=dict)
    methods: dict[str, Offer[type[Fingerprinter]]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls, files: Sequence[Path] = (), found: Iterable[EntryPoint] | None = None
    ) -> Registry:
        """Load installed plugins one by one, then loose files.

        Raises PluginError when a loose file cannot be loaded, or two plugins share a name.
        """
        registry = cls(pluggy.PluginManager("fpbench"))
        registry.manager.add_hookspecs(hooks)
        for entry in entry_points(group=GROUP) if found is None else found:
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            registry._add(entry.name, source, entry.load)
        for file in files:
            if any(
                Path(getattr(plugin, "__file__", None) or "").absolute() == file.absolute()
                for plugin in registry.manager.get_plugins()
            ):
                continue  # installed from this very file
            registry._add(str(file), str(file), lambda file=file: _module(file))  # type: ignore[misc]
            if str(file) in registry.broken:
                raise PluginError(registry.broken[str(file)])
        return registry

    def _add(self, name: str, source: str, load: Callable[[], Any]) -> None:
        try:
            with contained():
                plugin = load()
            self.manager.register(plugin, name)
            offers = [
                (offers, _checked(cls, base))
                for offers, hook, base in (
                    (self.scenarios, "fpbench_scenarios", Scenario),
                    (self.recipes, "fpbench_recipes", Recipe),
                    (self.methods, "fpbench_fingerprinters", Fingerprinter),
                )
                if hasattr(plugin, hook)
                for cls in getattr(plugin, hook)()
            ]
            self.manager.check_pending()
        except (Exception, SystemExit) as error:
            # Whatever a plugin does wrong on import must not stop those who do not need it.
            if self.manager.has_plugin(name):
                self.manager.unregister(name=name)
            reason = " ".join(str(error).split())  # one line
            self.broken[name] = (
                f"plugin {name} ({source}) did not load: {type(error).__name__}: {reason}"
            )
            return
        for known, cls in offers:
            self._offer(known, cls, source)

    @staticmethod
    def _offer(known: dict[str, Offer[Any]], cls: type, source: str) -> None:
        name = cls.name  # type: ignore[attr-defined]
        if name in known and known[name].cls is not cls:
            raise PluginError(
                f"expected one plugin to offer {name}, got two: {known[name].source} and "
                f"{source}; uninstall one of them or rename its class's `name`"
            )
        known[name] = Offer(cls, source)

    def missing(self, what: str, name: str, known: Iterable[str]) -> str:
        """One sentence for a name that nobody offers."""
        text = f"no {what} {name!r}; {did_you_mean(name, known)}"
        if self.broken:
            text += " (" + "; ".join(self.broken.values()) + ")"
        return text


def _checked(cls: Any, base: type) -> type:
    """A class that a plugin offers, if it is one: of its kind, with a name and typed fields."""
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise TypeError(f"expected a subclass of {base.__name__}, got {cls!r}")
    found: Any = cls
    if not isinstance(getattr(cls, "name", None), str):
        raise TypeError(f"expected {cls.__qualname__} to have a name, found none")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", found.name):
        raise TypeError(
            f"expected the name of {cls.__qualname__} to be of letters, digits and . _ + -, "
            f"got {clipped(found.name)}"
        )
    hints(found)  # raises NameError for a type that is misspelt
    return cls


def _module(file: Path) -> Any:
    """Import a loose file as a plugin: `fpbench -p my_method.py`."""
    if not file.is_file():
        raise PluginError(f"expected a Python file at {file}, found none")
    name = f"fpbench_loose_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise PluginError(f"expected a Python file (.py), got {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their own module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
