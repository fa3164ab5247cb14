"""Models that are no networks, so that networks are no references for them."""

from __future__ import annotations

import re

from .tensor_layout import RefusedError

OPERATOR = re.compile(rb'"[\x01-\x7f]((?:TreeEnsemble|SVM)[A-Za-z]*)')
"""The field `op_type` of an ONNX node: its tag, its length, its text."""


def tree_ensemble(raw: bytes) -> str | None:
    """Return the operator of an ONNX file's trees or support vectors; None if it has none.

    Nothing is parsed, so a hostile file cannot do harm.
    """
    found = OPERATOR.search(raw)
    return found[1].decode() if found else None


def require_network(raw: bytes) -> None:
    """Raise RefusedError for an ONNX file of trees or support vectors."""
    if name := tree_ensemble(raw):
        raise RefusedError(
            f"expected a neural network, got {name}: the independent models of a verdict are "
            "networks, which do not show how high an innocent model of that kind is rated"
        )
