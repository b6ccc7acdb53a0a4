"""The one rule by which a run draws its anchors: a seed and a few options say which entries are fixed, and at which values."""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax

from tna_jax import host_bits
from tna_jax.masks.draws import check_ratio
from tna_jax.masks.freezing import freeze, with_frozen, without_frozen
from tna_jax.masks.kinds import DRAWS
from tna_jax.masks.operations import Mask, Params, complement, soft
from tna_jax.masks.unit_inputs import per_unit
from tna_jax.masks.values import draw_anchors, scale_anchors, share_anchors
from tna_jax.prng import Stream, stream
from tna_jax.trees import PathFilter

Kind = Literal["bernoulli", "exact", "neurons", "per-unit"]
Values = Literal["initial", "normal"]


@dataclasses.dataclass(frozen=True)
class AnchorRecipe:
    """Draws the anchors of a run again: the same recipe gives the same mask and the same values, bit for bit.

    Recipes that differ in their ratio alone draw nested masks: a larger ratio anchors the same entries and more.

    >>> import jax.numpy as jnp
    >>> recipe = AnchorRecipe(ratio=0.4, seed=7)
    >>> mask = recipe.draw({"kernel": jnp.ones((100, 10)), "bias": jnp.zeros(10)})
    >>> mask["kernel"].shape, str(mask["kernel"].dtype)
    ((100, 10), 'bool')
    >>> AnchorRecipe.from_json(recipe.to_json()) == recipe
    True

    Raises:
      ValueError, TypeError: a field has a value that is not allowed; the message names the field.
    """

    kind: Kind = "bernoulli"
    """How entries are chosen: each weight by itself, an exact count of each leaf, whole units, or an exact number of every unit's inputs
    (see `DRAWS`)."""
    ratio: float = 0.4
    """The share of anchored entries, in [0, 1]."""
    seed: int = 0
    """The seed of the run, or of the pair in a sweep."""
    where: PathFilter | None = None
    """Which leaves have anchors: a regular expression or a predicate of the path; None: all."""
    soft: float | None = None
    """The multiplier, in [0, 1), of the updates of soft anchors; None: anchors are fixed."""
    values: Values = "initial"
    """Values of anchors: the initial ones of the model with index 0, or drawn anew from N(0, scale^2)."""
    scale: float = 1.0
    """Multiplies the values of anchors."""
    trainable_scale: float = 1.0
    """Multiplies the initial values of trainable entries, in models that have anchors (ratio above 0); of kind `per-unit` in leaves that
    have anchors: biases and norms keep theirs."""
    counts: Mapping[str, int] | None = None
    """Of kind `per-unit`: anchored inputs of each unit, by regular expressions of the path, instead of a share `ratio` of all inputs
    (see `masks.per_unit`)."""
    scales: Mapping[str, float] | None = None
    """Values of `scale` for some leaves, by regular expressions of the path; the others have `scale`."""
    freeze: PathFilter | None = None
    """Which leaves are anchored as a whole, whatever `ratio` and `where` say of the others: a regular expression or a predicate of the
    path; None: none."""

    def __post_init__(self) -> None:
        _require_known("kind", self.kind, get_args(Kind))
        _require_known("values", self.values, get_args(Values))
        check_ratio(self.ratio)
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise TypeError(f"seed must be an int, got {self.seed!r}")
        for name, chosen in (("where", self.where), ("freeze", self.freeze)):
            _require_filter(name, chosen)
        if self.soft is not None and not 0 <= self.soft < 1:
            raise ValueError(
                f"soft is the multiplier of soft anchors and must lie in [0, 1) or be None, got {self.soft}"
            )
        for name, value in {
            "scale": self.scale,
            "trainable_scale": self.trainable_scale,
            **(self.scales or {}),
        }.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
        if self.counts is not None and self.kind != "per-unit":
            raise ValueError(f"counts are anchored inputs of a unit: they need the kind 'per-unit', not {self.kind!r}")
        if self.soft is not None and self.trainable_scale != 1:
            raise ValueError("soft and trainable_scale do not go together: under soft anchors all entries are trained")

    @property
    def key(self) -> jax.Array:
        """The key that the mask is drawn with."""
        return host_bits.keys(host_bits.streams([self.seed], Stream.RUN_MASK, [0])[0])

    def draw(self, params: Params, key: jax.Array | None = None) -> Mask:
        """Draws the mask.

        Args:
          params: a pytree of floating-point arrays of any shape, or their shapes: the values are not read.
          key: another key than the recipe's, where a run draws more masks than one (an iteration folded into `recipe.key`).

        Returns:
          A mask with the structure and shapes of `params`: bool, or float32 where anchors are soft.

        Raises:
          ValueError: `where` or `freeze` selects nothing; of kind `per-unit` also as `masks.per_unit`.
          TypeError: `params` holds something other than floating-point arrays.
        """
        key = self.key if key is None else key
        if self.counts is not None:
            mask = per_unit(key, params, self.counts, self.where)
        else:
            mask = DRAWS[self.kind](key, params, self.ratio, self.where)
        return freeze(mask if self.soft is None else soft(mask, self.soft), self.freeze)

    def anchor_values(self, params: Params, mask: Mask) -> Params:
        """Returns the model of index 0 with the values that all models of the seed have at their anchors; leaves of `freeze` keep theirs.

        Args:
          params: the initial parameters of the model with index 0.
          mask: what `draw` gave for them.

        Raises:
          ValueError: the mask does not fit the parameters.
        """
        if self.values == "normal":
            key = stream(self.seed, Stream.RUN_ANCHORS)
            valued = draw_anchors(key, params, mask, self.scale, scales=self.scales)
        elif self.scale == 1 and not self.scales:
            return params
        else:
            valued = scale_anchors(params, mask, self.scale, scales=self.scales)
        return with_frozen(without_frozen(valued, self.freeze), params, self.freeze)

    def trainable_values(self, params: Params, mask: Mask) -> Params:
        """Returns a model with the values at which its trainable entries start; its anchors keep theirs, bit for bit.

        Args:
          params: the initial parameters of the model.
          mask: what `draw` gave.

        Raises:
          ValueError: the mask does not fit the parameters.
        """
        if self.trainable_scale == 1 or (self.ratio == 0 and self.counts is None):
            return params
        trainable = complement(mask)
        if self.kind == "per-unit":  # leaves without anchors keep their values
            trainable = jax.tree.map(lambda t: t | ~t.any(), trainable)
        return scale_anchors(params, trainable, self.trainable_scale)

    def initial_values(self, params: Params, first: Params, mask: Mask) -> Params:
        """Returns a model as its training starts: the shared anchors, and its own trainable entries.

        Args:
          params: the initial parameters of the model.
          first: those of the model with index 0, whose anchors all share.
          mask: what `draw` gave.

        Raises:
          ValueError: paths, shapes or dtypes differ.
        """
        return share_anchors(self.trainable_values(params, mask), self.anchor_values(first, mask), mask)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields by name, in JSON's own types.

        Raises:
          TypeError: `where` or `freeze` is a function, which a file cannot hold.
        """
        for name, chosen in (("where", self.where), ("freeze", self.freeze)):
            if callable(chosen):
                raise TypeError(f"{name} is a function, which a file cannot hold: write it as a regular expression")
        fields = dataclasses.asdict(self)
        return {
            name: value
            for name, value in fields.items()
            if name not in ("counts", "scales", "freeze") or value is not None
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AnchorRecipe":
        """Returns the recipe of `to_json`, or of the `mask` in an exported file's metadata; missing fields get their default.

        Raises:
          ValueError, TypeError: a field that there is not, or a value that is not allowed; the message names the field.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        unknown = [repr(name) for name in value if name not in names]
        if unknown:
            raise ValueError(f"an anchor recipe has no field {', '.join(unknown)}; its fields are {', '.join(names)}")
        return cls(**value)


def _require_filter(field: str, chosen: object) -> None:
    if not (chosen is None or isinstance(chosen, str) or callable(chosen)):
        raise TypeError(f"{field} must be a regular expression, a predicate of the path or None, got {chosen!r}")
    if isinstance(chosen, str):
        try:
            re.compile(chosen)
        except re.error as error:
            raise ValueError(f"{field}={chosen!r} is not a regular expression: {error}") from error


def _require_known(field: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown {field} {value!r}: {hint}known: {', '.join(known)}")
