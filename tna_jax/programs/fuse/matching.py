"""Matches the models that `tna fuse` fuses, and says what that took."""

from typing import Any

import jax

from tna_jax.io.errors import UsageError
from tna_jax.matching import permutations
from tna_jax.matching.many import Merged, match_to_first, merge_many
from tna_jax.matching.weights import activation_matching
from tna_jax.programs.cli.progress import console
from tna_jax.programs.fuse.options import FuseOptions
from tna_jax.programs.population.load import Population


def match(opened: Population, calibration: jax.Array, settings: FuseOptions) -> Merged | None:
    """Returns the models, matched: by weights with MergeMany, by activations all to the first; None without --matching.

    Args:
      opened: the models.
      calibration: (N, ...) training inputs.
      settings: the kind of matching, its starts and its seed.

    Raises:
      UsageError: the groups of the network cannot be found.
    """
    if settings.matching == "none":
        return None
    first, state = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (opened.params, opened.state))
    try:
        spec = permutations.permutation_spec(opened.exact, first, calibration[:16], state)
    except ValueError as error:
        raise UsageError(f"--matching {settings.matching}: {error}") from error
    key, restarts = jax.random.key(settings.seed), settings.starts
    with console.status(f"matching {len(opened.models)} models"):
        if settings.matching == "weight":
            return merge_many(spec, opened.params, state=opened.state, key=key, restarts=restarts)
        return match_to_first(
            opened.params,
            lambda a, b, s: activation_matching(spec, a, b, calibration, states=(state, s), key=key, restarts=restarts),
            opened.state,
        )


def summary(matched: Merged) -> dict[str, Any]:
    """Returns what the report says of a matching."""
    keys = ("objective", "sweeps", "assignments", "moving", "moved")
    return {
        "rounds": matched.rounds,
        "models": [{key: getattr(matching, key) for key in keys} for matching in matched.matchings],
    }
