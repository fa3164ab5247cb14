"""Find twins: suspects with the same weights, of which only one may count."""

from __future__ import annotations

from collections.abc import Mapping

from ..api.errors import SuiteError
from ..api.recipe import Recipe
from .suite import Suite


def find_twins(suite: Suite, weights: Mapping[str, str]) -> dict[str, str]:
    """Return the suspects to leave out: by digest, the digest of the twin that stays.

    The first of several twins in the suite's order stays. A positive with the weights of the target
    is a verbatim copy, so it stays too. Raises SuiteError for a negative with the weights of the
    target or of a positive.

    weights: by a model's digest, the sha256 of its weights.
    """
    twins: dict[str, str] = {}
    for zoo in suite.zoos:
        first: dict[str, Recipe] = {}
        for recipe in zoo.models:
            if (own := weights.get(recipe.digest)) is None:
                continue
            kept = first.setdefault(own, recipe)
            if kept.descends_from(zoo.target) and not recipe.descends_from(zoo.target):
                raise SuiteError(
                    f"expected other weights from negatives than from the target and positives, "
                    f"got the same from {kept} and {recipe}; take one of them out",
                    suite.places.get(recipe.digest),
                )
            if kept is zoo.target:
                first[own] = recipe
            elif kept is not recipe:
                twins[recipe.digest] = kept.digest
    return twins


def refuse_equal_files(suite: Suite) -> None:
    """Raise SuiteError for suspects from equal files, which are twins before anything is made.

    One positive may be a verbatim copy of the target.
    """
    models = {recipe.digest: recipe for zoo in suite.zoos for recipe in zoo.models}
    files = {digest: sha256 for digest, r in models.items() if (sha256 := r.source_sha256)}
    for twin, kept in find_twins(suite, files).items():
        raise SuiteError(
            f"expected every model file once, got equal files from {models[kept]} and "
            f"{models[twin]} (also at {suite.places[kept]}); take one of them out",
            suite.places[twin],
        )
