"""The options of `tna rebasin`."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, ranges
from tna_jax.programs.cli.arguments import Alias, Only, Positional
from tna_jax.programs.cli.evaluation_options import MatchingOptions
from tna_jax.programs.cli.ranges import Rule
from tna_jax.programs.cli.run_options import MachineOptions

FILE = ".safetensors"
MEAN = "mean"
FIRST = "first"
METHODS = ("weight", "activation")
"""Those of the default."""
ROTATION = "rotation"


def _reference(flag: str, values: tuple[str, ...]) -> str:
    wrong = [value for value in values if value not in (MEAN, FIRST) and not (value.isascii() and value.isdecimal())]
    if wrong:
        return f"{flag} must be {MEAN}, {FIRST} or the number of a model, got {', '.join(wrong)}"
    if len(values) - (MEAN in values) > 1 or values.count(MEAN) > 1:
        return f"{flag} must name one model, {MEAN}, or both, got {' '.join(values)}"
    return ""


def _norms(flag: str, values: tuple[str, ...]) -> str:
    wrong = [value for value in values if not all(value.partition("=")[::2])]
    form = {"--norms": "NORM", "--layer-scales": "FACTOR"}[flag]
    return f"{flag} must be written {form}=LAYER,LAYER, got {', '.join(wrong)}" if wrong else ""


def _by_path(texts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    parts = (text.partition("=") for text in texts)
    return {path: tuple(layers.split(",")) for path, _, layers in parts}


def _repeated(flag: str, values: tuple[str, ...]) -> str:
    return ranges.DIFFERENT.problem(flag, values) if values else ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RebasinOptions(MatchingOptions, MachineOptions):
    """Permute hidden units so that models match, and compare the barriers before, after, and with REPAIR."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "to", "pairs", "methods", "restarts", "repair", "group", "seed", "alphas", "calibration_examples", "data_dir",
        "out", "format", "permutations",
    )  # fmt: skip

    runs: Annotated[tuple[str, ...], Positional("RUN")]
    """Run folders of tna train (or tna lmc), or files of tna export, which become a run: their models are matched. Results go to
    the first."""
    to: Annotated[tuple[str, ...], Rule(_reference)] = ()
    """Match all models to their mean, all at once (mean: MergeMany, by weights), or every other one to the model of this number (first: 0);
    a model and mean: both, side by side; default: first."""
    pairs: tuple[str, ...] = ()
    """Pairs of models, I-J with numbers from 0: J is matched to I; with --to mean, the pairs to compare; default: every model with the
    first."""
    methods: Annotated[tuple[Literal["weight", "activation", "rotation"], ...], Rule(_repeated)] = ()
    """Match by inner products of the weights (weight), or by what hidden units compute (activation), or turn the residual stream of a
    Transformer with norms first, by weights (rotation: vit, dinov2, others with --norms); default: weight activation, with --to mean alone
    weight. Heads are matched by all; the units of each head in an order of its own by rotation alone: the files of --permutations hold one
    order for all heads, and queries and keys meet no weights, so that activations say nothing of their units."""
    norms: Annotated[tuple[str, ...], Rule(_norms)] = ()
    """Of rotation: the norms of a network of your own and the layers that read each, by path, as in 'layer_*/norm1=layer_*/query,layer_*/key'."""
    layer_scales: Annotated[tuple[str, ...], Rule(_norms)] = ()
    """Likewise, with --norms: factors on the outputs of sublayers, and the layers that they multiply, as in 'layer_*/scale1=layer_*/out'."""
    repair: bool = True
    """Also with REPAIR on top (networks without BatchNorm, whose statistics are estimated again in any case)."""
    group: str | None = None
    """Hidden units, by the name in the table, whose correlations are drawn; default: the first."""
    out: Annotated[str | None, Alias("-o")] = None
    """Write into this folder the models that others were matched to, the matched ones, the midpoints after REPAIR, and
    permutations.json; default: write none."""
    format: Annotated[Literal["run", "safetensors", "hf"], Only("out")] = "run"
    """With --out: a run folder whose models they are, safetensors files (tna import reads them), or Hugging Face folders (vit, dinov2)."""
    permutations: str | None = None
    """Write the permutations into this JSON file, by pair and group (tna_jax.io.load_permutations reads it)."""
    overwrite: bool = False
    """Replace --out and --permutations."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            self.check_runs,
            lambda: ranges.check(self),
            self.check_machine,
            self.check_permutations,
            self.check_to,
            lambda: effects.check(self),
        )

    def check_runs(self) -> None:
        """Raises UsageError unless runs are named, or files alone."""
        if not self.runs:
            raise UsageError("name a run folder of tna train, or two or more files of tna export")
        if len(self.files) == len(self.runs) == 1:
            raise UsageError(
                f"{self.runs[0]} holds one model; matching needs two: name two or more files of tna export"
            )
        if len(set(self.files)) < len(self.files):
            raise UsageError(f"{' '.join(self.runs)}: a file is named more than once; its model would count twice")
        if 0 < len(self.files) < len(self.runs):
            raise UsageError(f"{' '.join(self.runs)}: name runs or files of tna export, not both")

    @property
    def files(self) -> tuple[str, ...]:
        """The files of exported models among what is named."""
        return tuple(name for name in self.runs if name.endswith(FILE))

    @property
    def to_mean(self) -> bool:
        """Whether all models are matched to their mean, too or alone."""
        return MEAN in self.to

    @property
    def in_pairs(self) -> bool:
        """Whether the second model of a pair is matched to the first."""
        return self.to != (MEAN,)

    @property
    def reference(self) -> int | None:
        """The number of the model that others are matched to, if it is named."""
        numbers = [0 if value == FIRST else int(value) for value in self.to if value == FIRST or value.isdecimal()]
        return next(iter(numbers), None)

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """The methods of matching in pairs that are named, or else those of the default; none with --to mean alone."""
        return (self.methods or METHODS) if self.in_pairs else ()

    @property
    def starts(self) -> int:
        """Starts of each search of a pair, or, with --to mean alone, of all models."""
        return self.restarts or (1 if self.in_pairs else 4)

    @property
    def norms_read(self) -> dict[str, tuple[str, ...]]:
        """By norm, the layers that read it, as --norms says."""
        return _by_path(self.norms)

    @property
    def layer_scales_read(self) -> dict[str, tuple[str, ...]]:
        """By factor, the layers whose outputs it multiplies, as --layer-scales says."""
        return _by_path(self.layer_scales)

    def check_to(self) -> None:
        """Raises UsageError for a model to match to that does not go with the other options."""
        if not self.in_pairs and set(self.methods) - {"weight"}:
            raise UsageError(
                f"--to mean matches by weights: leave out --methods {' '.join(self.methods)}, or add --to first"
            )
        if self.to_mean and self.methods and "weight" not in self.methods:
            raise UsageError(
                f"--to mean matches by weights: add weight to --methods {' '.join(self.methods)}, or leave them out"
            )
        if self.reference is not None and self.pairs:
            raise UsageError(f"--pairs says which model is matched to which: leave out --to {self.to[0]}")
        if self.norms and ROTATION not in self.methods:
            raise UsageError("--norms says what --methods rotation turns: add that, or leave out --norms")
        if self.layer_scales and not self.norms:
            raise UsageError("--layer-scales goes with --norms: name the norms of the network too")
        if ROTATION in self.methods and self.permutations is not None and len(self.methods) == 1:
            raise UsageError("--permutations: a rotation is no permutation; --out writes the models")

    def check_permutations(self) -> None:
        """Raises UsageError for a file that cannot be written, or is there already."""
        if self.overwrite and self.out is None and self.permutations is None:
            raise UsageError("--overwrite does nothing without --out or --permutations")
        if self.permutations is None:
            return
        file = Path(self.permutations)
        if file.is_dir() or not file.parent.is_dir():
            raise UsageError(f"--permutations {file}: name a file in a folder that exists")
        if file.exists() and not self.overwrite:
            raise UsageError(f"--permutations {file} exists; name another file, or add --overwrite")
