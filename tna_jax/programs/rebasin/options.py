"""The options of `tna rebasin`."""

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Alias, Positional
from tna_jax.programs.cli.evaluation_options import MatchingOptions
from tna_jax.programs.cli.ranges import Rule
from tna_jax.programs.cli.run_options import MachineOptions

FILE = ".safetensors"
MEAN = "mean"
METHODS = ("weight", "activation")


def _reference(flag: str, value: str) -> str:
    known = value == MEAN or (value.isascii() and value.isdecimal())
    return "" if known else f"{flag} must be {MEAN} or the number of a model, got {value}"


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
    to: Annotated[str | None, Rule(_reference)] = None
    """Match all models to their mean, all at once (mean: MergeMany, by weights), or every other one to the model of this number;
    default: 0, the first."""
    pairs: tuple[str, ...] = ()
    """Pairs of models, I-J with numbers from 0: J is matched to I; with --to mean, the pairs to compare; default: every model with the
    first."""
    methods: Annotated[tuple[Literal["weight", "activation"], ...], Rule(_repeated)] = ()
    """Match by inner products of the weights (weight), or by what hidden units compute (activation); default: by both, with --to mean
    by weight."""
    repair: bool = True
    """Also with REPAIR on top (networks without BatchNorm, whose statistics are estimated again in any case)."""
    group: str | None = None
    """Hidden units, by the name in the table, whose correlations are drawn; default: the first."""
    out: Annotated[str | None, Alias("-o")] = None
    """Write into this folder the models that others were matched to, the matched ones, the midpoints after REPAIR, and
    permutations.json; default: write none."""
    format: Literal["run", "safetensors", "hf"] = "run"
    """With --out: a run folder whose models they are, safetensors files (tna import reads them), or Hugging Face folders (vit)."""
    permutations: str | None = None
    """Write the permutations into this JSON file, by pair and group (tna_jax.io.load_permutations reads it)."""
    overwrite: bool = False
    """Replace --out and --permutations."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            self.check_runs, lambda: ranges.check(self), self.check_machine, self.check_permutations, self.check_to
        )

    def check_runs(self) -> None:
        """Raises UsageError unless runs are named, or files alone."""
        if not self.runs:
            raise UsageError("name a run folder of tna train, or two or more files of tna export")
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
        """Whether all models are matched to their mean."""
        return self.to == MEAN

    @property
    def chosen_methods(self) -> tuple[str, ...]:
        """The methods that are named, or else those of the default."""
        return self.methods or (METHODS[:1] if self.to_mean else METHODS)

    @property
    def starts(self) -> int:
        """Starts of each search."""
        return self.restarts or (4 if self.to_mean else 1)

    def check_to(self) -> None:
        """Raises UsageError for a model to match to that does not go with the other options."""
        if self.to_mean and "activation" in self.methods:
            raise UsageError("--to mean matches by weights: leave out --methods activation")
        if self.to is not None and not self.to_mean and self.pairs:
            raise UsageError(f"--pairs says which model is matched to which: leave out --to {self.to}")

    def check_permutations(self) -> None:
        """Raises UsageError for a file that cannot be written, or is there already."""
        if self.permutations is None:
            return
        file = Path(self.permutations)
        if file.is_dir() or not file.parent.is_dir():
            raise UsageError(f"--permutations {file}: name a file in a folder that exists")
        if file.exists() and not self.overwrite:
            raise UsageError(f"--permutations {file} exists; name another file, or add --overwrite")
