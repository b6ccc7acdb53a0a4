"""`tna merge --match`: brings the hidden units of every model into the order of the first, by weight matching (arXiv 2209.04836).

Heads of attention are matched with the units of each in an order of its own (`matching.head_matching`).
"""

import dataclasses
import time
from typing import Any

import numpy as np

from tna_jax import matching
from tna_jax.hf import config as hf_config
from tna_jax.hf import names
from tna_jax.io.tensor_headers import Checkpoint
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.programs.cli.progress import console
from tna_jax.programs.merge import rotate
from tna_jax.programs.merge.layout import Layout, find_layout, read, require_finite
from tna_jax.programs.merge.permuted import permuted
from tna_jax.programs.merge.unmergeable import configuration

TOKENS = 6
"""Length of the texts with which a permuted model is checked to compute what it did."""
PATCHES = 2
"""Patches along a side of the images with which it is checked, if a model's own are larger: position embeddings are resized."""


@dataclasses.dataclass(frozen=True)
class Matched:
    """What matching did to a model."""

    checkpoint: Checkpoint
    """Its tensors, in the first model's order."""
    moved: dict[str, int]
    """By group of hidden units, how many have another place now."""
    units: dict[str, int]
    """By group, how many there are: in all heads together, where each may have an order of its own."""
    seconds: float
    turned: dict[str, Any] | None = None
    """Of a rotation: the group of units that it mixes, how many they are, and what the search reached."""

    def record(self) -> dict[str, Any]:
        """Returns what merge.json holds of it."""
        groups = {group: {"units": count, "moved": self.moved[group]} for group, count in self.units.items()}
        return {"model": str(self.checkpoint.path), "moved": sum(self.moved.values()), "units": sum(self.units.values()),
                "groups": groups, "seconds": self.seconds, **({} if self.turned is None else {"turned": self.turned})}  # fmt: skip


def match(
    models: list[Checkpoint], base: Checkpoint | None, rotation: bool = False
) -> tuple[list[Checkpoint], Checkpoint | None, list[Matched]]:
    """Matches all models, and the base, to the first; returns them and what was done to each.

    Args:
      models: the models.
      base: the model that they were fine-tuned from, if there is one.
      rotation: turn the residual streams too, and bring the first model into the form that this takes.

    Raises:
      UsageError: tensors whose hidden units are not known, or that are not those of the first model; all are named.
    """
    first, *others = [*models, *([base] if base is not None else [])]
    kind = str(configuration(first)["model_type"])
    held = {canonical: name for name, canonical in names.canonical(kind, list(first.tensors)).items()}
    layout = find_layout(first, kind, {canonical: first.tensors[name] for canonical, name in held.items()})
    a = layout.params(first, held)
    require_finite(first, a, layout)
    if rotation:
        rotate.require_turnable(kind, layout.module, [first, *others])
    spec = matching.permutation_spec(layout.network, a, _inputs(layout.module, configuration(first)))
    if rotation:
        turned = [_turn_one(layout, spec, a, first, other, held) for other in others]
        first, done = turned[0][0], [matched for _, matched in turned]
    else:
        done = [_match_one(layout, spec, a, other, held) for other in others]
    checkpoints = [first, *(m.checkpoint for m in done)]
    return checkpoints[: len(models)], checkpoints[len(models)] if base is not None else None, done


def _match_one(layout: Layout, spec: PermutationSpec, a: Any, other: Checkpoint, held: dict[str, str]) -> Matched:
    start = time.perf_counter()
    b = read(layout, other, held)
    found = matching.head_matching(spec, a, b)
    orders = found.matching.permutation
    moved = {group: int((order != np.arange(len(order))).sum()) for group, order in orders.items()}
    units = {group: len(order) for group, order in orders.items()}
    canonical = {name: key for key, name in held.items()}
    tensors = {
        name: permuted(tensor, layout.orders(spec, found, canonical.get(name, name)))
        for name, tensor in other.tensors.items()
    }
    seconds = time.perf_counter() - start
    console.print(
        f"matched {other.path}: {sum(moved.values()):,} of {sum(units.values()):,} hidden units moved, {seconds:.0f} s",
        highlight=False,
    )
    return Matched(dataclasses.replace(other, tensors=tensors), moved, units, seconds)


def _turn_one(
    layout: Layout, spec: PermutationSpec, a: Any, first: Checkpoint, other: Checkpoint, held: dict[str, str]
) -> tuple[Checkpoint, Matched]:
    """Returns the first model in the form of a rotation, the same for all others, and what was done to another one."""
    start = time.perf_counter()
    found = rotate.turn(spec, layout.module, a, read(layout, other, held), str(other.path))
    reference = rotate.in_form(layout, first, found.reference, held)
    checkpoint = rotate.in_form(layout, other, found.params, held, found.rotation)
    moved = {group: int((order != np.arange(len(order))).sum()) for group, order in found.permutation.items()}
    units = {group: len(order) for group, order in found.permutation.items()}
    (stream,) = set(spec.groups) - set(found.permutation)
    turned = {"group": stream, "units": spec.groups[stream], "objective": found.objective, "rounds": found.rounds}
    seconds = time.perf_counter() - start
    console.print(
        f"turned {other.path}: a residual stream of {spec.groups[stream]:,} units; {sum(moved.values()):,} of {sum(units.values()):,} other "
        f"hidden units moved, {seconds:.0f} s",
        highlight=False,
    )
    return reference, Matched(checkpoint, moved, units, seconds, turned)


def _inputs(module: Any, config: dict[str, Any]) -> np.ndarray:
    """Returns inputs (2, ...) with which networks are compared: noise, or drawn ids."""
    draws = np.random.default_rng(0)
    if hf_config.type_of(module) in hf_config.VISION:
        _, height, width, channels = hf_config.example(module, config.get("num_channels", 3)).shape
        most = PATCHES * module.patch
        return draws.normal(size=(2, min(height, most), min(width, most), channels)).astype(np.float32)
    room = module.positions - 1 - (module.pad_id or 0) if hf_config.type_of(module) == "roberta" else module.positions
    return draws.integers(0, module.vocab, (2, min(TOKENS, room))).astype(np.int32)
