"""The options of `tna fuse`."""

import dataclasses
from typing import Annotated, ClassVar, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, pairs, ranges
from tna_jax.programs.cli.arguments import Alias, Only, Positional, Section
from tna_jax.programs.cli.choices import FusingMethod, Ties
from tna_jax.programs.cli.evaluation_options import MatchingOptions
from tna_jax.programs.cli.ranges import COUNT, NOT_NEGATIVE
from tna_jax.programs.cli.run_options import MachineOptions

METHODS = Section("merging methods")
OF_METHODS = ("base", "method_options", "weights", "scope", "merge_examples")
"""Options that are of --method."""
WITHOUT_WEIGHTS = ("adamerging",)
"""Methods in which models have no weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FuseOptions(MatchingOptions, MachineOptions):
    """Make one model out of many: best single model, soups, merging methods, ensemble; and the barriers of all pairs."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "models", "method", "method_options", "weights", "base", "matching", "restarts", "repair", "held_out_examples",
        "alphas", "data_dir", "out", "format",
    )  # fmt: skip

    runs: Annotated[tuple[str, ...], Positional("RUN")]
    """Run folders of tna train (or tna lmc): the models of all of them are fused. Results go to the first."""
    models: tuple[int, ...] = ()
    """Fuse only these: their numbers, from 0 through all runs in order; default: all."""
    method: Annotated[tuple[FusingMethod, ...], METHODS] = ()
    """Merge by these too, beside the average; the strength and density of each are chosen on held-out training examples."""
    base: Annotated[str | None, METHODS] = None
    """Model from which all were trained, a file of tna export or a run of one model; default: the initial values they share."""
    method_options: Annotated[tuple[str, ...] | None, METHODS, pairs.PAIRS] = None
    """Options of the methods, as strength=1 or density=0.2,0.5: the values to try, in all combinations; default: a grid."""
    weights: Annotated[tuple[float, ...] | None, METHODS, NOT_NEGATIVE] = None
    """Weight of each model in the average and the methods: shares of what they average, factors of task vectors that they add; default:
    equal."""
    scope: Annotated[Literal["tensor", "model"], METHODS] = "tensor"
    """Over what a method takes its thresholds and angles: each tensor by itself, or the whole model."""
    merge_examples: Annotated[int, METHODS, COUNT] = 256
    """Training examples, without their labels, that fisher, regmean and adamerging look at."""
    matching: Literal["none", "weight", "activation"] = "none"
    """Permute hidden units first: weight (MergeMany: each model to the mean of the others), activation (all to the first)."""
    repair: bool = False
    """Rescale the hidden units of each average to the activations of its models (REPAIR): soups, candidates of methods, and the paths
    of all pairs, which are measured without it too; for networks without BatchNorm."""
    ties: Ties = "keep"
    """Greedy soup: keep or drop a model that leaves the held-out accuracy as it is."""
    held_out_examples: Annotated[int, COUNT] = 5000
    """Training examples by which the best model, the greedy soup and options of methods are chosen: those left out by
    --train-examples, if any."""
    out: Annotated[str | None, Alias("-o")] = None
    """Write the best model, the uniform and the greedy soup, and the merge of each method into this folder; default: write none."""
    format: Annotated[Literal["run", "safetensors", "hf"], Only("out")] = "run"
    """With --out: a run folder whose models they are, safetensors files (tna import reads them), or Hugging Face folders (vit, dinov2)."""
    overwrite: Annotated[bool, Only("out")] = False
    """Replace --out."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            self.check_runs,
            lambda: ranges.check(self),
            self.check_machine,
            self.check_matching,
            lambda: effects.check(self),
        )
        self.check_methods()
        self.check_weights()

    @property
    def starts(self) -> int:
        """Starts of each search of matching."""
        return self.restarts or (4 if self.matching == "weight" else 1)

    def check_runs(self) -> None:
        """Raises UsageError unless a run is named."""
        if not self.runs:
            raise UsageError("name one or more run folders of tna train")

    def check_matching(self) -> None:
        """Raises UsageError for options of a matching that there is not."""
        if self.restarts is not None and self.matching == "none":
            raise UsageError("--restarts: for matching, name a kind with --matching")

    def check_methods(self) -> None:
        """Raises UsageError for methods and options of methods that do not go together; how many models there are is not known yet."""
        if not self.method:
            if flags := effects.given(self, OF_METHODS):
                raise UsageError(f"{', '.join(flags)}: for merging methods, name one or more with --method")
            return
        if twice := [name for name in dict.fromkeys(self.method) if self.method.count(name) > 1]:
            raise UsageError(f"--method names {', '.join(twice)} more than once")
        from tna_jax.programs.fuse import methods  # NumPy, which other options do without

        needing = [name for name in self.method if methods.ALL[name].needs_base]
        if needing and self.matching != "none":
            raise UsageError(
                f"--method {' '.join(needing)} merges changes from a base, whose units --matching does not move: leave out one of them"
            )
        if self.base is not None and not needing:
            raise UsageError(
                f"--base: {' '.join(self.method)} merges the models themselves, without a base; leave it out"
            )

    def check_weights(self) -> None:
        """Raises UsageError for weights that a method does not take, or that are not those of the models."""
        if self.weights is None:
            return
        if without := [name for name in self.method if name in WITHOUT_WEIGHTS]:
            raise UsageError(
                f"--weights: {', '.join(without)} learns its own coefficients and takes no weights; leave out one of them"
            )
        if sum(self.weights) == 0:
            raise UsageError("--weights: their sum must not be 0")
        if self.models and len(self.weights) != len(self.models):
            raise UsageError(f"--weights: {len(self.weights)} for {len(self.models)} models; give one for each")
