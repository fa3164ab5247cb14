"""Every installed method keeps the contract on every toy scenario it applies to."""

from __future__ import annotations

import pytest

from fpbench.engine.registry import Registry
from fpbench.testing import check_fingerprinter

METHODS = {name: offer.cls for name, offer in Registry.load().methods.items()}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_contract(name: str) -> None:
    check_fingerprinter(METHODS[name])
