"""What is installed, in words: for `fpbench list` and `fpbench describe`."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from ..api.errors import PluginError
from ..api.fields import hints, spelled
from .registry import Offer, Registry


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
