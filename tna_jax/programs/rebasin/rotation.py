"""`tna rebasin --methods rotation`: turns the residual stream of a Transformer (Procrustes, arXiv 2506.22712), and permutes all else."""

from collections.abc import Callable

import jax

from tna_jax.io.errors import UsageError
from tna_jax.masks import Params
from tna_jax.matching.orthogonal import LAYER_SCALES, NORMS, Norms, OrthogonalMatching, orthogonal_matching
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.programs.population.load import Population
from tna_jax.programs.rebasin.options import RebasinOptions

Turn = Callable[[Params, Params], OrthogonalMatching]


def rotation_search(spec: PermutationSpec, opened: Population, settings: RebasinOptions) -> Turn:
    """Returns how two models are matched; both keep their function to 1e-4, which is checked.

    Args:
      spec: of the network.
      opened: the models.
      settings: --norms, --layer-scales, the seed and the starts.

    Raises:
      UsageError: a network without a residual stream that can be turned; the returned function raises it too.
    """
    kind = None if settings.norms else _kind_of(opened)
    norms: Norms = settings.norms_read if kind is None else NORMS[kind]
    layer_scales: Norms = settings.layer_scales_read if kind is None else LAYER_SCALES.get(kind, {})

    def turn(a: Params, b: Params) -> OrthogonalMatching:
        problems = []
        for centered in (True, False):  # layer norms; RMS norms
            try:
                return orthogonal_matching(
                    spec, a, b, norms=norms, layer_scales=layer_scales, centered=centered, key=jax.random.key(settings.seed),
                    restarts=settings.starts,
                )  # fmt: skip
            except ValueError as error:
                problems.append(str(error))
        raise UsageError(f"--methods rotation does not go with {opened.what}: {problems[0]}")

    return turn


def _kind_of(opened: Population) -> str:
    """The kind of the library's networks that it is."""
    kind = str(opened.config.get("model")).partition("_")[0]
    if opened.module is not None and kind in ("vit", "dinov2"):
        return kind
    what = "say which layers read which norm: --norms 'layer_*/norm1=layer_*/query,layer_*/key,layer_*/value' ..."
    raise UsageError(
        f"--methods rotation turns the residual stream of a Transformer with norms first; {opened.what} is not known to be one"
        f"{'' if opened.module is not None else f'. If it is, {what}'}"
    )
