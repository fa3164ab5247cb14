"""The source code that a class depends on, as this process loaded it.

Covered are the modules that the class and its bases stand in, and every local module that these
import, directly or through others, anywhere in the file. A module is local unless Python, an
installed distribution or fpbench itself brings it; an installed plugin's own package is local to
it. Not covered: modules imported under a name that is computed, and files that are not modules.

Comments, docstrings and layout do not count: code is compared as its syntax tree, so that a
sentence that was corrected makes nobody's results old.
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
"""The folders that distributions are installed in."""

OUR_PLUGINS = "fpbench.builtin."
"""The modules of fpbench that are covered like any plugin's."""

PROMISED = re.compile(r"fpbench(\.api(\..*)?|\.builtin)?")
"""Modules of fpbench that no digest covers: `fpbench.api.CONTRACT` stands for what is promised, and
the index of our own plugins imports all of them. The rest of fpbench counts by its version."""


class Code(NamedTuple):
    """The code that a class depends on.

    source:   a digest of the local modules.
    packages: the top-level names of the installed packages that these import.
    """

    source: str
    packages: frozenset[str]


_loaded: dict[str, tuple[object, bytes | None]] = {}
"""By name: a loaded module, and its file's content when it was first seen; None if not local."""


def read_loaded() -> None:
    """Read the files of local modules that were loaded since the last call.

    Called after each plugin has loaded: a file that is edited later is not taken for the code
    that runs.
    """
    for name, module in list(sys.modules.items()):
        if name not in _loaded or _loaded[name][0] is not module:
            file = _file(name)
            local = file is not None and _is_local(name, file)
            _loaded[name] = module, read(Path(file)) if file and local else None


def code_of(cls: type) -> Code:
    """Return the code that a class depends on.

    A module that is loaded counts as it was when it was first seen; one that is not loaded yet
    counts as it is on disk now.
    """
    read_loaded()
    own = cls.__module__
    todo = [base.__module__ for base in cls.__mro__]
    seen, digests, packages = set[str](), list[str](), set[str]()
    while todo:
        name = todo.pop()
        top = name.partition(".")[0]
        if name in seen or top in sys.stdlib_module_names or PROMISED.fullmatch(name):
            continue
        seen.add(name)
        if (file := _file(name)) is None:
            continue
        if name == own or _is_local(name, file, own):
            place = Path(file).name
            digest, imports = _parsed(_content(name, file), name, place == "__init__.py")
            digests.append(f"{place} {digest}")
            todo += imports
        else:
            packages.add(top)
    return Code(sha256("\n".join(sorted(digests)).encode()), frozenset(packages))


@cache
def version(package: str) -> str:
    """Return the version of the distribution that brings a package; empty if there is none."""
    known = {"sklearn": "scikit-learn"}  # asking every distribution takes a third of a second
    try:
        return importlib.metadata.version(known.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        brings = importlib.metadata.packages_distributions().get(package, [])
        return " ".join(importlib.metadata.version(name) for name in sorted(set(brings)))


def _is_local(name: str, file: str, own: str = "") -> bool:
    """Whether a module is covered; `own` is the module of the class."""
    top = name.partition(".")[0]
    if top == "fpbench":
        return name.startswith(OUR_PLUGINS)
    if top in sys.stdlib_module_names:
        return False
    return top == own.partition(".")[0] or INSTALLED.isdisjoint(Path(file).parts)


def _file(name: str) -> str | None:
    """Return a module's file, whether or not it is loaded; None if it has none. Runs nothing."""
    if (module := sys.modules.get(name)) is not None:
        # Some modules make up attributes; their own dictionary does not.
        file = getattr(module, "__dict__", {}).get("__file__")
        return file if isinstance(file, str) else None
    top, *rest = name.split(".")
    try:
        spec = find_spec(top)
        for part in rest:
            if spec is None or spec.submodule_search_locations is None:
                return None
            spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    except Exception:  # finders are anybody's code
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _content(name: str, file: str) -> bytes:
    module, content = _loaded.get(name, (None, None))
    if content is None:
        content = read(Path(file)) or b""
        if module is not None:  # of an installed plugin
            _loaded[name] = module, content
    return content


@cache
def _parsed(content: bytes, name: str, is_package: bool) -> tuple[str, tuple[str, ...]]:
    """Return a module's digest, and every name that may be a module that it imports."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a compiled module
        return sha256(content), ()
    imports = tuple(_imports(tree, name, is_package))
    try:
        return sha256(ascii(_plain(tree)).encode()), imports
    except RecursionError:  # an expression of thousands of terms
        return sha256(content), imports


def _plain(node: Any) -> Any:
    """Return a syntax tree as lists, without positions, statements that are only a text, and fields
    that are empty, which every version of Python has others of."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value is not None)
        return [type(node).__name__, *([n, _plain(v)] for n, v in fields if v != [])]
    if isinstance(node, list):
        return [_plain(each) for each in node if not _is_text(each)]
    return node


def _is_text(node: Any) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.AST, name: str, is_package: bool) -> Iterator[str]:
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
                except ImportError:  # above the top; it fails when it runs
                    continue
            yield from _with_parents(base)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
