"""Plugins in, names out."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

import pluggy

from ..api import hooks
from ..api.errors import PluginError, clipped, did_you_mean
from ..api.fields import hints, spelled
from ..api.fingerprinter import Fingerprinter
from ..api.recipe import Recipe
from ..api.scenario import Scenario
from .code import read_loaded
from .isolation import contained

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
            read_loaded()
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
                "type": spelled(cls, f.name),
                "default": None if f.default is dataclasses.MISSING else f.default,
                "required": f.default is dataclasses.MISSING,
            }
            for f in dataclasses.fields(cls)
            if f.name in hints(cls) and f.name not in ("scenario", "parent")
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
