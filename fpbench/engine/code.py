"""Find the source code that a class depends on, as this process loaded it.

This covers the modules that define the class and its bases, and every local module that these
import, directly or through others, anywhere in the file. A module is local unless it belongs to
Python, to an installed distribution or to fpbench itself. The own package of an installed plugin
counts as local too. Not covered: modules that are imported by a computed name, and files that are
not modules.

Code is compared as its syntax tree. Comments, docstrings and layout do not count, so that a
corrected sentence does not make results out of date.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, resolve_name
from pathlib import Path
from typing import Any, NamedTuple

from ..store.files import read, sha256

INSTALLED = {"site-packages", "dist-packages"}
"""The names of folders in which distributions are installed."""

OUR_PLUGINS = "fpbench.builtin."
"""The modules of fpbench that are covered like those of any plugin."""

NOT_COVERED = re.compile(r"fpbench(\.api(\..*)?|\.builtin)?")
"""Modules of fpbench that no digest covers. `fpbench.api.CONTRACT` stands for the api; the index of
our own plugins would bring in all of them. The rest of fpbench counts by its version."""


class Code(NamedTuple):
    """The code that a class depends on.

    source:   a digest of the local modules.
    packages: the top-level names of the installed packages that the local modules import.
    """

    source: str
    packages: frozenset[str]


_loaded: dict[str, tuple[object, bytes | None]] = {}
"""By name: a loaded module, and the content of its file when it was first seen; None if the module
is not local."""


def read_loaded() -> None:
    """Read the files of local modules that were loaded since the last call.

    The registry calls this after each plugin has loaded. A file that is edited later then does not
    count as the code that runs.
    """
    for name, module in list(sys.modules.items()):
        if name not in _loaded or _loaded[name][0] is not module:
            file = _file(name)
            local = file is not None and _is_local(name, file)
            _loaded[name] = module, read(Path(file)) if file and local else None


def code_of(cls: type) -> Code:
    """Return the code that a class depends on.

    A loaded module counts with the content that it had when it was first seen. A module that is not
    loaded yet counts with the content that is on disk now.
    """
    read_loaded()
    own = cls.__module__
    todo = [base.__module__ for base in cls.__mro__]
    seen, digests, packages = set[str](), list[str](), set[str]()
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names or NOT_COVERED.fullmatch(name):
            continue
        seen.add(name)
        if (file := _file(name)) is None:
            continue
        if name == own or _is_local(name, file, own):
            filename = Path(file).name
            digest, imports = _parse(_content(name, file), name, filename == "__init__.py")
            digests.append(f"{filename} {digest}")
            todo += imports
        else:
            packages.add(top)
    return Code(sha256("\n".join(sorted(digests)).encode()), frozenset(packages))


@cache
def version(package: str) -> str:
    """Return the version of the distribution that contains a package; empty if there is none."""
    # A shortcut, because a search through all distributions takes a third of a second.
    distribution_names = {"sklearn": "scikit-learn"}
    try:
        return importlib.metadata.version(distribution_names.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package, [])
        return " ".join(importlib.metadata.version(name) for name in sorted(set(names)))


def _is_local(name: str, file: str, own: str = "") -> bool:
    """Return whether a module is local; `own` is the module of the class."""
    top = name.partition(".")[0]
    if top == "fpbench":
        return name.startswith(OUR_PLUGINS)
    if top in sys.stdlib_module_names:
        return False
    return top == own.partition(".")[0] or INSTALLED.isdisjoint(Path(file).parts)


def _file(name: str) -> str | None:
    """Return a module's file; None if it has none. The module need not be loaded, and no code of it
    runs."""
    if (module := sys.modules.get(name)) is not None:
        # The dictionary, because some modules invent attributes on access.
        file = getattr(module, "__dict__", {}).get("__file__")
        return file if isinstance(file, str) else None
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    except Exception:  # a finder may be code of a third party
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _content(name: str, file: str) -> bytes:
    """Return the content of a module's file, as it was when the module was first seen."""
    module, content = _loaded.get(name, (None, None))
    if content is None:
        content = read(Path(file)) or b""
        if module is not None:  # a loaded module of an installed plugin
            _loaded[name] = module, content
    return content


@cache
def _parse(content: bytes, name: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """Return a module's digest, and every imported name that may be a module."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a compiled module
        return sha256(content), ()
    imports = tuple(_imports(tree, name, is_package))
    try:
        return sha256(ascii(_as_lists(tree)).encode()), imports
    except RecursionError:  # an expression of thousands of terms
        return sha256(content), imports


def _as_lists(node: Any) -> Any:
    """Return a syntax tree as lists, without positions, docstrings and empty fields.

    Empty fields are left out because each version of Python has others.
    """
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None)
        return [type(node).__name__, *([n, _as_lists(v)] for n, v in fields if v != [])]
    if isinstance(node, list):
        return [_as_lists(each) for each in node if not _is_text(each)]
    return node


def _is_text(node: Any) -> bool:
    """Return whether a statement is only a text, as a docstring is."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[str]:
    """Yield every imported name that may be a module, with the packages around it."""
    package = name if is_package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = resolve_name("." * node.level + base, package)
                except ImportError:  # more dots than packages: the import fails when it runs
                    continue
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    """Yield a dotted name and the names of all packages around it."""
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
