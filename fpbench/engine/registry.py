"""Plugins in, names out."""

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
from .isolation import contained
from .resources import shortage

log = logging.getLogger("fpbench")

GROUP = "fpbench"

C = TypeVar("C", bound=type)


@dataclass(frozen=True)
class Offer(Generic[C]):
    """A class that a plugin brings, and the distribution it came in."""

    cls: C
    source: str


OFFERS: dict[str, type] = {
    "fpbench_scenarios": Scenario,
    "fpbench_recipes": Recipe,
    "fpbench_fingerprinters": Fingerprinter,
}
"""By hook, the base of the classes that plugins return."""


class Registry:
    """Every scenario, recipe and method that plugins offer, by name; and the broken plugins.

    manager: calls the hooks.
    files:   the plugin files that were loaded; a worker loads them too.
    broken:  by plugin name, why it does not work. The text is part of the message about a name
             that nobody offers; a broken plugin stops nobody else.
    """

    def __init__(self) -> None:
        self.manager = PluginManager(self._answered, self._failed)
        self.scenarios: dict[str, Offer[type[Scenario]]] = {}
        self.recipes: dict[str, Offer[type[Recipe]]] = {}
        self.methods: dict[str, Offer[type[Fingerprinter]]] = {}
        self.files: list[Path] = []
        self.broken: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        self._plugins: dict[type, str] = {}

    @classmethod
    def load(
        cls, files: Sequence[Path] = (), found: Iterable[EntryPoint] | None = None
    ) -> Registry:
        """Load installed plugins one by one, then plugin files, which are read anew.

        Raises PluginError when a file cannot be loaded, or two plugins share a name.
        """
        NEIGHBOURS.forget()
        registry = cls()
        for entry in entry_points(group=GROUP) if found is None else found:
            source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            registry._register(entry.name, source, entry.load)
        registry.add(files)
        return registry

    def add(self, files: Sequence[Path]) -> None:
        """Load plugin files. Raises PluginError as `load` does."""
        for file in files:
            if not file.is_file():
                raise PluginError(f"expected a Python file at {file}, found none")
            if not self._has(file):
                self._register(str(file), str(file), partial(self._module, file))
        self._collect()
        for file in files:
            if str(file) in self.broken:
                raise PluginError(self.broken[str(file)])

    def _has(self, file: Path) -> bool:
        """Return whether a file is loaded already, from its path or as an installed plugin."""
        loaded = (getattr(plugin, "__file__", None) for plugin in self.manager.get_plugins())
        return file.resolve() in {Path(path).resolve() for path in loaded if path}

    def _module(self, file: Path) -> ModuleType:
        name = f"fpbench_loose_{file.stem}"
        if any(file.stem == other.stem for other in self.files):
            name += f"_{sha256(str(file.resolve()).encode())[:8]}"
        module = load(file, name)
        self.files.append(file.absolute())
        return module

    def _register(self, name: str, source: str, load: Callable[[], Any]) -> None:
        if self.manager.has_plugin(name):
            name = f"{name} ({source})"
        self._sources[name] = source
        try:
            with contained():
                plugin = load()
            read_loaded()
            self.manager.register(plugin, name)
            self.manager.check_pending()
        except (Exception, SystemExit) as error:
            self._break(name, "did not load", error)
            self.manager.unregister(name=name)

    def _break(self, name: str, how: str, error: BaseException) -> None:
        reason = " ".join(str(error).split())  # one line
        source = self._sources.get(name, name)
        origin = "" if source in name else f" ({source})"
        self.broken[name] = f"plugin {name}{origin} {how}: {type(error).__name__}: {reason}"

    def _collect(self) -> None:
        """Ask every plugin what it offers. Raises PluginError when two offer one name."""
        self._plugins.clear()
        lists = [getattr(self.manager.hook, hook)() for hook in OFFERS]
        for plugin in self.broken:
            self.manager.unregister(name=plugin)
        kinds: tuple[dict[str, Offer[Any]], ...] = (self.scenarios, self.recipes, self.methods)
        for known, offered in zip(kinds, lists, strict=True):
            known.clear()
            for cls in chain.from_iterable(offered):
                if (plugin := self._plugins[cls]) not in self.broken:
                    self._offer(known, cls, self._sources[plugin])

    @staticmethod
    def _offer(known: dict[str, Offer[Any]], cls: type, source: str) -> None:
        name = cls.name  # type: ignore[attr-defined]
        if name in known and known[name].cls is not cls:
            raise PluginError(
                f"expected one plugin to offer {name}, got two: {known[name].source} and "
                f"{source}; uninstall one of them or rename its class's `name`"
            )
        known[name] = Offer(cls, source)

    def _answered(self, hook: str, plugin: str, answer: Any, wrapper: bool) -> Any:
        """Check what a plugin returned, while it is still known which plugin that was."""
        if hook not in OFFERS and hook != "fpbench_executor_names":
            return answer
        if wrapper:
            return [self._answered(hook, plugin, offered, False) for offered in answer]
        if hook not in OFFERS:
            return [str(name) for name in answer]
        classes = [_checked(cls, OFFERS[hook]) for cls in answer]
        for cls in classes:
            self._plugins.setdefault(cls, plugin)
        return classes

    def _failed(self, hook: str, plugin: str, error: BaseException) -> None:
        """Report a plugin that raised. Errors that an executor explains are the caller's."""
        if hook in OFFERS:
            self._break(plugin, "did not load", error)
        elif hook in ("fpbench_executor", "fpbench_executor_names"):
            if isinstance(error, FpbenchError):
                raise error
            self._break(plugin, f"failed in {hook}", error)
        elif reason := shortage(error):
            log.warning("reporter %s failed: %s; the run goes on", plugin, reason)
        else:
            log.error("reporter %s failed; the run goes on", plugin, exc_info=error)

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
    field_types(found)  # raises NameError for a type that is misspelt
    return cls


def listed(registry: Registry) -> list[dict[str, Any]]:
    """Every offer and every broken plugin: what, name, summary, source."""
    rows = [
        {"what": what, "name": name, "summary": _first_line(offer.cls), "source": offer.source}
        for what, offers in _kinds(registry)
        for name, offer in sorted(offers.items())
    ]
    return rows + [
        {"what": "broken plugin", "name": name, "summary": reason, "source": ""}
        for name, reason in sorted(registry.broken.items())
    ]


def described(registry: Registry, name: str) -> dict[str, Any]:
    """One offer in full. Raises PluginError for an unknown name."""
    for what, offers in _kinds(registry):
        if name in offers:
            return _entry(what, offers[name])
    known = [name for _, offers in _kinds(registry) for name in offers]
    raise PluginError(registry.missing("scenario, recipe or method", name, known))


def _kinds(registry: Registry) -> list[tuple[str, dict[str, Offer[Any]]]]:
    return [
        ("scenario", registry.scenarios),
        ("recipe", registry.recipes),
        ("method", registry.methods),
    ]


def _entry(what: str, offer: Offer[Any]) -> dict[str, Any]:
    cls = offer.cls
    entry: dict[str, Any] = {
        "what": what,
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
    if what == "method":
        entry["supports"] = cls.supports.__name__.lower()
        entry["accepts"] = [str(a) for a in sorted(cls.accepts)]
        entry["needs_ensemble"] = cls.needs_ensemble
        entry["paper"] = cls.paper
        entry["claim"] = cls.claim
    elif what == "scenario":
        # Shapes and networks may depend on fields: these are the defaults'.
        if not any(f["required"] for f in entry["fields"]):
            scenario = cls()
            entry["data"] = scenario.summary
            entry["architectures"] = list(scenario.architectures)
            entry["input_shape"] = scenario.input_shape
        entry["input_range"] = cls.input_range
        entry["output_shape"] = cls.output_shape
    else:
        entry["version"] = cls.version
        entry["needs_parent"] = cls.needs_parent
    return entry


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n")[0]
