"""`tna fuse RUN...`: one model out of many: best single, uniform and greedy soup, ensemble, and the barriers of all pairs."""

import dataclasses
from typing import Annotated, Any, cast, get_args

import jax
import numpy as np
import tyro

from tna_jax import connectivity
from tna_jax.averaging import Ties
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.json_files import to_json
from tna_jax.io.provenance import provenance
from tna_jax.matching import permutations
from tna_jax.matching.many import Merged, match_to_first, merge_many
from tna_jax.matching.weights import activation_matching
from tna_jax.networks import Stateful
from tna_jax.placement import Placement
from tna_jax.programs.cli import parsing, ranges
from tna_jax.programs.cli.launch import launch
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.cli.ranges import BOUND, COUNT, NOT_NEGATIVE
from tna_jax.programs.fuse import report as fuse_report
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.population.fusion_methods import Fusions
from tna_jax.programs.population.load import Population, held_out, open_runs, splits
from tna_jax.programs.population.paths import evaluate_pairs
from tna_jax.programs.system import distributed
from tna_jax.programs.system.distributed import HostOptions
from tna_jax.programs.training.setup import result_config

RESULTS = ("fuse.json", "fuse.png")
MATCHING = ("none", "weight", "activation")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatchingOptions:
    """How are models matched?"""

    seed: int = 0
    """Of the order of the search."""
    calibration_examples: int = 2000
    """Training examples for activation matching, for REPAIR, and on which BatchNorm's statistics are estimated again."""
    alphas: tuple[float, ...] = (11.0,)
    """Points of each pair's path: their number (odd), or the list of points, which must hold 0, 0.5 and 1."""
    placement: str = "auto"
    """How models share a device: auto, map, vmap or loop."""
    data_dir: str | None = None
    """Folder that holds the data sets, if not where $TNA_DATA_DIR says."""
    memory_limit: float | None = None
    """Memory the models may take, in GB; default: a third of what is free."""

    def check_matching(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        if self.placement not in get_args(Placement):
            raise unknown("--placement", self.placement, get_args(Placement))
        ranges.require(self, {"calibration_examples": COUNT, "memory_limit": BOUND, "seed": NOT_NEGATIVE})
        parsing.grid(self.alphas)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseOptions(MatchingOptions, HostOptions):
    """Options of `tna fuse`."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Run folders of tna train (or tna lmc): the models of all of them are fused. Results go to the first."""
    models: tuple[int, ...] = ()
    """Fuse only these: their numbers, from 0 through all runs in order. Default: all."""
    matching: str = "none"
    """Rename hidden units first: none, weight (MergeMany: each model to the mean of the others), activation (all to the first)."""
    repair: bool = False
    """Rescale the hidden units of each average to the activations of its models (REPAIR); for networks without BatchNorm."""
    ties: str = "keep"
    """Greedy soup: keep or drop a model that leaves the held-out accuracy as it is."""
    held_out_examples: int = 5000
    """Training examples by which the best model and the greedy soup are chosen: those left out by --train-examples, if any."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        super().check()
        self.check_matching()
        if not self.runs:
            raise UsageError("name one or more run folders of tna train")
        if self.matching not in MATCHING:
            raise unknown("--matching", self.matching, MATCHING)
        if self.ties not in get_args(Ties):
            raise unknown("--ties", self.ties, get_args(Ties))
        ranges.require(self, {"held_out_examples": COUNT})


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("fuse", FuseOptions, run, arguments, __doc__)


def run(settings: FuseOptions) -> dict[str, Any]:
    """Fuses the models and writes fuse.json and fuse.png into the first run's folder; returns what the JSON holds."""
    settings.check()
    alphas = parsing.grid(settings.alphas)
    settings.start(16)
    opened = open_runs(settings.runs, settings.data_dir, settings.models)
    if settings.repair and isinstance(opened.network, Stateful):
        raise UsageError("--repair: this network has BatchNorm; its statistics are estimated again in any case")
    console.print(f"{opened.data.describe()}; {opened.what}; {len(opened.models)} models")
    data, placement = splits(opened.data), cast(Placement, settings.placement)
    calibration = data["train"][0][: settings.calibration_examples]
    params, state, matched = opened.params, opened.state, None
    if settings.matching != "none":
        with console.status(f"matching {len(opened.models)} models"):
            matched = match(opened, calibration, settings.matching, settings.seed)
        params, state = matched.members, matched.state
    chosen_on, labels, unseen = held_out(opened, settings.data_dir, settings.held_out_examples)
    if settings.repair:
        mix = fusion_methods.repaired(opened.module, opened.data.preprocess, params, calibration, placement)
    else:
        mix = fusion_methods.mixtures(opened.network, params, state, calibration, placement)
    with console.status(f"averaging {len(opened.models)} models, scored on {len(labels)} examples"):
        found = fusion_methods.fuse(
            opened.network,
            params,
            data,
            (chosen_on, labels),
            mix,
            state=state,
            ties=cast(Ties, settings.ties),
            placement=placement,
        )
    pairs = connectivity.pairs(len(opened.models))
    with console.status(f"evaluating {plural(len(pairs), 'path')} of {len(alphas)} points"):
        paths = evaluate_pairs(
            opened.network, params, state, pairs, alphas, opened.data, placement=placement,
            calibration_examples=settings.calibration_examples, memory_limit=settings.memory_limit,
        )  # fmt: skip
    result = {
        "provenance": provenance([settings.seed]),
        "runs": settings.runs,
        "run": result_config(opened.config),
        "network": opened.what,
        "models": opened.models,
        "checkpoints": opened.checkpoints,
        "warnings": opened.warnings,
        "options": {key: getattr(settings, key) for key in ("matching", "repair", "ties", "seed", "calibration_examples")},
        "held_out": {"examples": len(labels), "unseen_in_training": unseen},
        "rows": rows(found),
        "greedy": {"weights": found.recipe.weights, "score": found.recipe.score,
                   "trail": [step._asdict() for step in found.recipe.trail]},
        "pairs": [
            {"pair": pairs[i], "split": split, "accuracy_midpoint": path.accuracy[i, int(np.argmax(alphas == 0.5))],
             "accuracy_barrier": connectivity.barrier(path, "linear", "accuracy")[i],
             "loss_barrier": connectivity.barrier(path, "linear", "loss")[i]}
            for split, path in paths.items()
            for i in range(len(pairs))
        ],
        "matched": None if matched is None else summary(matched),
    }  # fmt: skip
    folder = opened.folder
    folder.write(RESULTS[0], result)
    if distributed.is_main_process():
        fuse_report.figure(to_json(result), folder.folder / RESULTS[1])
        fuse_report.table(to_json(result))
        print(f"wrote {folder.folder / RESULTS[0]} and {folder.folder / RESULTS[1]}")
    return to_json(result)


def match(opened: Population, calibration: jax.Array, kind: str, seed: int) -> Merged:
    """The models, matched: `weight` with MergeMany, `activation` all to the first.

    Raises:
      UsageError: the groups of the network cannot be found.
    """
    one = jax.tree.map(lambda leaf: leaf[0], (opened.params, opened.state))
    try:
        spec = permutations.permutation_spec(opened.exact, one[0], calibration[:16], one[1])
    except ValueError as error:
        raise UsageError(f"--matching {kind}: {error}") from error
    if kind == "weight":
        return merge_many(spec, opened.params, state=opened.state, key=jax.random.key(seed))
    return match_to_first(
        opened.params, lambda a, b, s: activation_matching(spec, a, b, calibration, states=(one[1], s)), opened.state
    )


def summary(matched: Merged) -> dict[str, Any]:
    """What the report says of a matching."""
    keys = ("objective", "sweeps", "assignments", "moving", "moved")
    return {
        "rounds": matched.rounds,
        "models": [{key: getattr(one, key) for key in keys} for one in matched.matchings],
    }


def rows(found: Fusions) -> list[dict[str, Any]]:
    """One row per fusion and split; accuracies are shares, losses nats."""
    result = []
    for split, members in found.members.items():
        accuracy, loss = members.accuracy.astype(np.float64), members.loss.astype(np.float64)
        spread = {"accuracy_std": accuracy.std(ddof=1), "loss_std": loss.std(ddof=1)}
        table = {
            "best single": {"accuracy": accuracy[found.best], "loss": loss[found.best], "models": [found.best]},
            "mean of members": {"accuracy": accuracy.mean(), "loss": loss.mean(), **spread},
            **{name: {"accuracy": m[split].accuracy, "loss": m[split].loss} for name, m in (
                ("uniform soup", found.uniform), ("greedy soup", found.greedy), ("logit ensemble", found.ensemble))},
        }  # fmt: skip
        table["greedy soup"]["models"] = np.flatnonzero(found.recipe.weights)
        for name, values in table.items():
            row = {"fusion": name, "split": split, "examples": int(members.count[0]), **values}
            result.append({**row, **({"member_accuracy": accuracy} if name == "mean of members" else {})})
    return result
