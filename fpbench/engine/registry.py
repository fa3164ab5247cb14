"""Load plugins, and find what they offer by name."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from ..api.errors import FpbenchError, PluginError, clipped, did_you_mean
from ..api.fields import field_types, type_in_words
from ..api.fingerprinter import Fingerprinter
from ..api.python_file import NEIGHBOURS, load
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from ..store.files import sha256
from .code import read_loaded
from .hook_calls import PluginManager
from .isolation import isolated
from .resources import shortage

log = logging.getLogger("fpbench")

GROUP = "fpbench"

C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Offer(Generic[C]):
    """A class that a plugin offers.

    source: the distribution or the plugin file that it comes from.
    """

    cls: C
    source: str


BASES: dict[str, type] = {
    "fpbench_scenarios": Scenario,
    "fpbench_recipes": Recipe,
    "fpbench_fingerprinters": Fingerprinter,
}
"""By hook, the base of the classes that plugins return."""


class Registry:
    """Every scenario, recipe and method that plugins offer, by name, and the broken plugins.

    manager: calls the hooks.
    files:   the plugin files that were loaded. Workers load them too.
    broken:  by plugin name, why the plugin does not work. A broken plugin does not stop the others.
             Messages about unknown names include this text.
    """

    def __init__(self) -> None:
        self.manager = PluginManager(self._check_answer, self._report_error)
        self.scenarios: dict[str, Offer[type[Scenario]]] = {}
        self.recipes: dict[str, Offer[type[Recipe]]] = {}
        self.methods: dict[str, Offer[type[Fingerprinter]]] = {}
        self.files: list[Path] = []
        self.broken: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        self._plugins: dict[type, str] = {}

    @classmethod
    def load(
        cls, files: Sequence[Path] = (), installed: Iterable[EntryPoint] | None = None
    ) -> Registry:
        """Load installed plugins one by one, then plugin files. Each call reads the files again.

        installed: the entry points of the installed plugins; None to look for them.

        Raises PluginError if a file cannot be loaded, or if two plugins offer the same name.
        """
        NEIGHBOURS.forget()
        registry = cls()
        for entry in entry_points(group=GROUP) if installed is None else installed:
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            registry._register(entry.name, source, entry.load)
        registry.add(files)
        return registry

    def add(self, files: Sequence[Path]) -> None:
        """Load plugin files. Raises PluginError as `load` does."""
        for file in files:
            if not file.is_file():
                raise PluginError(f"expected a Python file at {file}, found none")
            if not self._is_loaded(file):
                self._register(str(file), str(file), partial(self._load_file, file))
        self._collect_offers()
        for file in files:
            if str(file) in self.broken:
                raise PluginError(self.broken[str(file)])

    def _is_loaded(self, file: Path) -> bool:
        """Return whether a file is loaded already, from its path or as an installed plugin."""
        loaded = (getattr(plugin, "__file__", None) for plugin in self.manager.get_plugins())
        return file.resolve() in {Path(path).resolve() for path in loaded if path}

    def _load_file(self, file: Path) -> ModuleType:
        """Load a plugin file as a module. Its name differs from those of the other plugin files."""
        name = f"fpbench_loose_{file.stem}"
        if any(file.stem == other.stem for other in self.files):
            name += f"_{sha256(str(file.resolve()).encode())[:8]}"
        module = load(file, name)
        self.files.append(file.absolute())
        return module

    def _register(self, name: str, source: str, load: Callable[[], Any]) -> None:
        """Load a plugin and register it. If that fails, the plugin is marked as broken."""
        if self.manager.has_plugin(name):
            name = f"{name} ({source})"
        self._sources[name] = source
        try:
            with isolated():
                plugin = load()
            read_loaded()
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except (Exception, SystemExit) as error:
            self._mark_broken(name, "did not load", error)
            self.manager.unregister(name=name)

    def _mark_broken(self, name: str, problem: str, error: BaseException) -> None:
        reason = " ".join(str(error).split())  # one line
        source = self._sources.get(name, name)
        origin = "" if source in name else f" ({source})"
        self.broken[name] = f"plugin {name}{origin} {problem}: {type(error).__name__}: {reason}"

    def _collect_offers(self) -> None:
        """Collect the offers of every plugin. Raises PluginError if two offer the same name."""
        self._plugins.clear()
        answers = [getattr(self.manager.hook, hook)() for hook in BASES]
        for plugin in self.broken:
            self.manager.unregister(name=plugin)
        kinds: tuple[dict[str, Offer[Any]], ...] = (self.scenarios, self.recipes, self.methods)
        for offers, classes in zip(kinds, answers, strict=True):
            offers.clear()
            for cls in chain.from_iterable(classes):
                if (plugin := self._plugins[cls]) not in self.broken:
                    self._add_offer(offers, cls, self._sources[plugin])

    @staticmethod
    def _add_offer(offers: dict[str, Offer[Any]], cls: type, source: str) -> None:
        name = cls.name  # type: ignore[attr-defined]
        if name in offers and offers[name].cls is not cls:
            raise PluginError(
                f"expected one plugin to offer {name}, got two: {offers[name].source} and "
                f"{source}; uninstall one of them or rename its class's `name`"
            )
        offers[name] = Offer(cls, source)

    def _check_answer(self, hook: str, plugin: str, answer: Any, wrapper: bool) -> Any:
        """Check what a plugin returned, and note which plugin offers each class."""
        if hook not in BASES and hook != "fpbench_executor_names":
            return answer
        if wrapper:
            return [self._check_answer(hook, plugin, each, False) for each in answer]
        if hook not in BASES:
            return [str(name) for name in answer]
        classes = [_check_class(cls, BASES[hook]) for cls in answer]
        for cls in classes:
            self._plugins.setdefault(cls, plugin)
        return classes

    def _report_error(self, hook: str, plugin: str, error: BaseException) -> None:
        """Report a plugin that raised. Raises the FpbenchError of an executor for the caller."""
        if hook in BASES:
            self._mark_broken(plugin, "did not load", error)
        elif hook in ("fpbench_executor", "fpbench_executor_names"):
            if isinstance(error, FpbenchError):
                raise error
            self._mark_broken(plugin, f"failed in {hook}", error)
        elif reason := shortage(error):
            log.warning("reporter %s failed: %s; the run goes on", plugin, reason)
        else:
            log.error("reporter %s failed; the run goes on", plugin, exc_info=error)

    def missing(self, kind: str, name: str, known: Iterable[str]) -> str:
        """Return the sentence about a name that no plugin offers, with the nearest known names."""
        text = f"no {kind} {name!r}; {did_you_mean(name, known)}"
        if self.broken:
            text += " (" + "; ".join(self.broken.values()) + ")"
        return text


def _check_class(cls: Any, base: type) -> type:
    """Return a class that a plugin offers. Raises TypeError or NameError for one that is unusable.

    A class must be a subclass of `base`, and have a name and typed fields.
    """
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise TypeError(f"expected a subclass of {base.__name__}, got {cls!r}")
    offered: Any = cls
    if not isinstance(getattr(cls, "name", None), str):
        raise TypeError(f"expected {cls.__qualname__} to have a name, found none")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", offered.name):
        raise TypeError(
            f"expected the name of {cls.__qualname__} to be of letters, digits and . _ + -, "
            f"got {clipped(offered.name)}"
        )
    field_types(offered)  # raises NameError for a misspelt type
    return cls


def list_offers(registry: Registry) -> list[dict[str, Any]]:
    """Return every offer and every broken plugin, with the keys what, name, summary and source."""
    rows = [
        {"what": kind, "name": name, "summary": _first_line(offer.cls), "source": offer.source}
        for kind, offers in _kinds(registry)
        for name, offer in sorted(offers.items())
    ]
    return rows + [
        {"what": "broken plugin", "name": name, "summary": reason, "source": ""}
        for name, reason in sorted(registry.broken.items())
    ]


def describe_offer(registry: Registry, name: str) -> dict[str, Any]:
    """Return the full description of one offer. Raises PluginError for an unknown name."""
    for kind, offers in _kinds(registry):
        if name in offers:
            return _describe(kind, offers[name])
    known = [name for _, offers in _kinds(registry) for name in offers]
    raise PluginError(registry.missing("scenario, recipe or method", name, known))


def _kinds(registry: Registry) -> list[tuple[str, dict[str, Offer[Any]]]]:
    return [
        ("scenario", registry.scenarios),
        ("recipe", registry.recipes),
        ("method", registry.methods),
    ]


def _describe(kind: str, offer: Offer[Any]) -> dict[str, Any]:
    cls = offer.cls
    entry: dict[str, Any] = {
        "what": kind,
        "name": cls.name,
        "source": offer.source,
        "text": inspect.getdoc(cls) or "",
        "fields": [
            {
                "name": f.name,
                "type": type_in_words(cls, f.name),
                "default": None if f.default is dataclasses.MISSING else f.default,
                "required": f.default is dataclasses.MISSING,
            }
            for f in dataclasses.fields(cls)
            if f.name in field_types(cls) and f.name not in ("scenario", "parent")
        ],
    }
    if kind == "method":
        entry["supports"] = cls.supports.__name__.lower()
        entry["input_kinds"] = sorted(cls.input_kinds)
        entry["accepts"] = [str(a) for a in sorted(cls.accepts)]
        entry["needs_ensemble"] = cls.needs_ensemble
        entry["paper"] = cls.paper
        entry["claim"] = cls.claim
    elif kind == "scenario":
        # Shapes and networks may depend on fields; these are of the scenario with default fields.
        if not any(f["required"] for f in entry["fields"]):
            scenario = cls()
            entry["data"] = scenario.summary
            entry["architectures"] = list(scenario.architectures)
            entry["input_shape"] = scenario.input_shape
            entry["input_kind"] = scenario.input_kind
        # So they may be for a scenario that needs fields.
        for name in ("input_range", "output_shape"):
            if isinstance(value := getattr(cls, name), tuple) and value:
                entry[name] = value
    else:
        entry["version"] = cls.version
        entry["needs_parent"] = cls.needs_parent
    return entry


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]
