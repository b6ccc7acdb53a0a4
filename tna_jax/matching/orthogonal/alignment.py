"""Orthogonal alignment of two Transformers: a rotation of the residual stream, and permutations of everything else, in turn."""

from typing import NamedTuple

import jax
import numpy as np

from tna_jax import prng, sharding
from tna_jax.masks import Params
from tna_jax.matching import permutations
from tna_jax.matching.ascent import best_of
from tna_jax.matching.assignment import require_finite_models
from tna_jax.matching.gains import Gains, Leaves, blocks, real_leaves
from tna_jax.matching.heads import HeadGains, Nests, apply_head_permutation, ascend_heads, nests
from tna_jax.matching.orthogonal.declarations import Norms
from tna_jax.matching.orthogonal.norm_form import norm_form
from tna_jax.matching.orthogonal.rotations import procrustes, rotate
from tna_jax.matching.orthogonal.streams import ResidualStream, residual_stream
from tna_jax.matching.permutations import PermutationSpec

ENOUGH = 1e-4
"""The search ends where a round gains less than this share of the objective."""
MOST_ROUNDS = 50

Start = tuple[np.ndarray, dict[str, np.ndarray] | None]
"""A rotation, and orders of the groups if there are any."""


class OrthogonalMatching(NamedTuple):
    """Two networks without scales in their norms, the second one turned and permuted towards the first."""

    reference: Params
    """The first network in `norm_form`: the same function as before. Average this with `params`."""
    params: Params
    """The second one in `norm_form`, its stream turned, its other units permuted: the same function as before."""
    rotation: np.ndarray
    """(D, D) float64: the second network's stream times this is where the first one's is."""
    permutation: dict[str, np.ndarray]
    """By group; of units in heads (heads x units,) ints, see `apply_head_permutation`. The stream's is not among them."""
    nested: Nests
    objective: float
    """Inner product of `reference` and `params`."""
    rounds: int
    """Rotations that were solved."""


@sharding.outside_meshes
def orthogonal_matching(
    spec: PermutationSpec,
    a: Params,
    b: Params,
    *,
    norms: Norms,
    layer_scales: Norms | None = None,
    centered: bool = True,
    key: jax.Array | None = None,
    restarts: int = 1,
    check: bool = True,
    tolerance: float | None = None,
) -> OrthogonalMatching:
    """Turns the residual stream of `b`, and permutes its other hidden units, so that its weights come near those of `a`.

    After Theus et al. 2025 (arXiv 2506.22712): norms first lose their scales and biases to the layers that read them, and layer scale goes into
    the layers that write (`norm_form`), which leaves
    the function as it is and any rotation of the stream free. Then in turn: the best rotation given the permutations (Procrustes, by a singular
    value decomposition), and permutations of units, heads, and the units of each head, given the rotation (`head_matching`), until nothing is
    gained. It starts from the rotation of what touches nothing but the stream (embeddings, head), and again from the permutation of
    `head_matching`; the higher end counts. Of layer norms the rotation keeps the mean apart, so that both results run in the network that was
    given, and so does `line(reference, params, t)`; ours, where the paper takes another network with RMS norms.

    Anchors do not survive: a rotation mixes entries, and scales are folded into kernels. Masks, and what a run says of
    its anchors, are true of neither result.

    Args:
      spec: of the network, which has norms first (norm, layer, sum) and no state; not those with norms after the sum, not those with a
        tied head (`untied`).
      a, b: parameters of one model each.
      norms: of the stream and what reads them: `NORMS` for `tna_jax.models`.
      layer_scales: factors on the outputs of sublayers, and the layers that write these: `LAYER_SCALES`; default: there are none.
      centered: whether the norms subtract the mean (layer norm); False for RMS norms.
      key, restarts: of the permutations, as in `weight_matching`.
      check: compare the functions of `a` and `b` before and after.
      tolerance: what they may differ by, as a share of the largest output; default: by the narrowest float of the program.

    Raises:
      ValueError: fewer than 1 start, no such stream, non-finite weights, a network with state, or, with norms other than declared,
        another function.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be at least 1, got {restarts}")
    if spec.state:
        raise ValueError("a network with state (running statistics) has no residual stream that can be turned")
    permutations.require_leaves(spec, a=a, b=b)
    require_finite_models(a=real_leaves(a), b=real_leaves(b))
    stream = residual_stream(spec, norms, layer_scales)
    reference, other = (norm_form(stream, params, centered=centered) for params in (a, b))
    if check:
        _check(spec, a, reference, tolerance)
    draws = np.random.default_rng(prng.words(prng.root_key(0) if key is None else key))
    search = _Search(spec, stream, reference, other, centered, restarts, draws)
    ends = [search.climb(start) for start in search.starts()]
    best = max(ends, key=lambda end: end.objective)
    if check:
        _check(spec, b, best.params, tolerance)
    return best


def _check(spec: PermutationSpec, before: Params, after: Params, tolerance: float | None) -> None:
    try:
        permutations.check_function(spec, before, after, tolerance=tolerance)
    except ValueError as error:
        raise ValueError(
            f"{error}. It may also have norms that norms= does not name, factors of layer scale that layer_scales= does not, norms after the "
            "sum, or norms that do not (or do) subtract the mean: centered="
        ) from None


class _Search:
    """Climbs in turn over rotations of one group and permutations of all others."""

    def __init__(
        self,
        spec: PermutationSpec,
        stream: ResidualStream,
        a: Params,
        b: Params,
        centered: bool,
        restarts: int,
        draws: np.random.Generator,
    ) -> None:
        self.spec, self.stream, self.a, self.b = spec, stream, a, b
        self.centered, self.restarts, self.draws = centered, restarts, draws
        self.nested = nests(spec, b)
        # all 1, and never turned
        scales = {norm.scale for norm in stream.norms} | {factor.scale for factor in stream.layer_scales}
        self.first = {path: leaf * (path not in scales) for path, leaf in real_leaves(a).items()}
        self.free = set(spec.groups) - {stream.group}

    def starts(self) -> list[Start]:
        """Rotations to begin with: of what touches nothing else, and the permutation of the stream."""
        products = _products(self.spec, self.stream, self.first, real_leaves(self.b))
        gains = Gains(self.spec, self.first, real_leaves(self.b))
        order = best_of(gains, self.draws, self.restarts)[0]
        renaming = np.eye(self.stream.width)[:, order[self.stream.group]]
        starts: list[Start] = [(renaming, order)]
        if products.any():
            starts.append((procrustes(products, centered=self.centered), None))
        return starts

    def climb(self, start: Start) -> OrthogonalMatching:
        """Goes on from a rotation, and an order of the other groups if there is one, until a round gains next to nothing."""
        rotation, common = start
        rounds, reached, order = 0, -np.inf, None
        while True:
            turned = real_leaves(rotate(self.stream, rotation, self.b))
            if common is None:
                common = best_of(Gains(self.spec, self.first, turned), self.draws, self.restarts, free=self.free)[0]
            order = self._joined(common) if order is None else order
            gains = HeadGains(self.spec, self.first, turned, self.nested)
            order, _ = ascend_heads(gains, order, self.free)
            named = {f"{name} of heads" if name in self.nested else name: o for name, o in order.items()}
            objective = gains.objective(named)
            if objective <= reached + ENOUGH * abs(reached) or rounds == MOST_ROUNDS:
                break
            reached, rounds = objective, rounds + 1
            rotation = rotation @ procrustes(gains.of(self.stream.group, named).T, centered=self.centered)
        order = {name: o for name, o in order.items() if name != self.stream.group}
        params = apply_head_permutation(self.spec, self.nested, order, rotate(self.stream, rotation, self.b))
        return OrthogonalMatching(self.a, params, rotation, order, self.nested, objective, rounds)

    def _joined(self, common: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Orders of units of heads, counted through all heads, that are the same in each; the stream as it is."""
        order = {**common, self.stream.group: np.arange(self.stream.width)}
        for units, heads in self.nested.items():
            size = self.spec.groups[units]
            order[units] = (common[heads][:, None] * size + common[units][None, :]).reshape(-1)
        return order


def _products(spec: PermutationSpec, stream: ResidualStream, a: Leaves, b: Leaves) -> np.ndarray:
    """Inner products (D of b, D of a) of leaves that no other group stands in."""
    total = np.zeros((stream.width, stream.width))
    for path, leaf in spec.params.items():
        for block in blocks(a[path], b[path], leaf):
            others = [group for group in block.groups if group is not None]
            if others == [stream.group]:
                axis = block.groups.index(stream.group)
                rows = [np.moveaxis(x, axis, 0).reshape(stream.width, -1) for x in (block.b, block.a)]
                total += rows[0] @ rows[1].T
    return total
