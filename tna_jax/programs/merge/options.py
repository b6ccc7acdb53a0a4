"""The options of `tna merge`."""

import dataclasses
import difflib
import math
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import effects, pairs, ranges
from tna_jax.programs.cli.arguments import Alias, Only, Positional, Section
from tna_jax.programs.cli.choices import DataAwareMethod, MergingMethod, Ties
from tna_jax.programs.merge.plan import Choices

OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz", ".npy", ".gguf", ".pkl", ".json")
"""Endings of names that nobody means a folder by."""
SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "B": 1.0}
FACTORS = ("task_arithmetic", "dare_linear", "della_linear", "breadcrumbs", "iso_c", "wudi")
"""Methods whose weights are factors of task vectors, and not shares: their sum may be 0."""
TENSORS, SEARCH = Section("tensors"), Section("greedy soup")


def _patterns(flag: str, patterns: tuple[str, ...]) -> str:
    wrong = []
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            wrong.append(f"{pattern!r} ({error})")
    return f"{flag} must be regular expressions, got {', '.join(wrong)}" if wrong else ""


def _size(flag: str, text: str) -> str:
    return "" if (size_of(text) or 0) >= 1 else f"{flag} must be a size such as 5GB or 500MB, got {text}"


def size_of(text: str) -> int | None:
    """Returns the bytes of a size such as `5GB`; None if it is none."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]?i?B)\s*", text, re.IGNORECASE)
    return int(float(match[1]) * SIZES[match[2].upper()]) if match else None


PATTERNS, SIZE = ranges.Rule(_patterns), ranges.Rule(_size)


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Merge safetensors checkpoints of any family, streamed: averages, task vectors, greedy soups, adapters."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "out", "method", "base", "weights", "method_options", "dtype", "match", "evaluate", "allow_different", "overwrite", "dry_run",
    )  # fmt: skip

    out: Annotated[str, Alias("-o")]
    """File or folder to write: a name that ends in .safetensors is one file; a folder has the shards of the first model."""
    models: Annotated[tuple[str, ...], Positional("MODEL")] = ()
    """Two or more safetensors files, or folders (model.safetensors, or shards with their index), of equal tensors."""
    method: MergingMethod = "average"
    """How the models become one; all but average, slerp and karcher merge what fine-tuning changed, and need --base."""
    base: str | None = None
    """Model that all others were fine-tuned from: task vectors start there, adapters (LoRA) are folded into it."""
    method_options: Annotated[tuple[str, ...] | None, pairs.PAIRS] = None
    """Options of the method, as density=0.2 strength=1; an option that it does not have is refused with those that it has."""
    scope: Literal["tensor", "model"] = "tensor"
    """Over what a method takes its thresholds and angles: each tensor by itself, or the whole model."""
    weights: tuple[float, ...] | None = None
    """Weight of each model, in their order; averages scale them to sum to 1; default: equal weights."""
    weight: Annotated[tuple[str, ...] | None, TENSORS] = None
    """Weights of the tensors whose name a pattern finds, as 'REGEX=0.7 0.3'; the first pattern that does decides."""
    only: Annotated[tuple[str, ...], TENSORS, PATTERNS] = ()
    """Merge only the tensors whose name one of these patterns finds; the others are the base's, or the first model's."""
    skip: Annotated[tuple[str, ...], TENSORS, PATTERNS] = ()
    """Do not merge the tensors whose name one of these patterns finds: they are the base's, or the first model's."""
    strip_prefix: Annotated[tuple[str, ...], TENSORS] = ()
    """Take this off the names of the tensors that begin with it, in all models; of several the longest that fits."""
    add_prefix: Annotated[str | None, TENSORS] = None
    """Put this in front of the names of the tensors that do not begin with it, in all models."""
    dtype: Literal["float32", "float16", "bfloat16", "float64"] | None = None
    """Dtype in which floating-point tensors are written; with it models of different dtypes merge. Default: the models' own."""
    accumulate: Literal["float32", "float64"] = "float32"
    """Dtype of the sums of averages (float64 tensors: always float64)."""
    shard_size: Annotated[str | None, SIZE] = None
    """Most that a file of the folder takes, as 5GB; default: the shards of the first model."""
    allow_different: tuple[str, ...] = ()
    """Fields of the models' configurations that may differ though they change what the models compute; `tokenizer` for tokens."""
    evaluate: Annotated[str | None, SEARCH] = None
    """Command that scores a model: it is run with the path of a file or folder as its last argument and must print a number,
    larger is better, as its last line. Makes a greedy soup of the models; score on held-out data, not on the test set."""
    evaluate_minutes: Annotated[float | None, SEARCH, ranges.POSITIVE, Only("evaluate")] = None
    """Longest that the command may take for a model; one that it does not score in time, or at all, is left out."""
    ties: Annotated[Ties, SEARCH, Only("evaluate")] = "keep"
    """Greedy soups: keep or drop an ingredient that leaves the score as it is."""
    recipe: str | None = None
    """File that names method, models, base, weights and dtype in mergekit's YAML; instead of these options."""
    match: bool = False
    """First bring the hidden units of every model into the order of the first (weight matching), for models that were trained apart;
    for Hugging Face folders of the types that tna_jax.hf loads."""
    match_by: Annotated[Literal["permutation", "rotation"], Only("match")] = "permutation"
    """With --match: put hidden units into another order, which changes no value, or turn the residual stream as well (rotation: vit, deit,
    dinov2, and decoders with a head of their own), which writes every model, the first too, in another form of the same function."""
    dry_run: bool = False
    """Check everything, print what would be written, how much memory and time it takes, and write nothing."""
    overwrite: bool = False
    """Replace --out."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any file is read."""
        if self.method in get_args(DataAwareMethod):
            raise UsageError(
                f"--method {self.method} looks at data and runs the network, and files hold neither: tna fuse RUN --method {self.method} "
                "merges the models of runs so, tna_jax.merging any network"
            )
        collect_errors(
            lambda: ranges.check(self),
            lambda: effects.check(self),
            self.check_method,
            self.check_weights,
            self.check_tensors,
            self.check_out,
        )

    def check_method(self) -> None:
        """Raises UsageError for options that do nothing for the method; which one a recipe names is not known yet."""
        if self.recipe is None and self.method != "average" and self.accumulate != "float32":
            raise UsageError(
                f"--accumulate {self.accumulate} is of averages: it does nothing for --method {self.method}"
            )

    def check_weights(self) -> None:
        """Raises UsageError for models and weights that do not go together."""
        if self.recipe is not None:
            self._require_alone()
            return
        alone = self.base is not None  # one adapter, or one task vector
        if len(self.models) < (1 if alone else 2):
            raise UsageError(f"name two or more models to merge, got {len(self.models)}")
        if self.evaluate is not None and (self.method != "average" or self.weight):
            raise UsageError(
                "--evaluate makes a greedy soup, an average of equal weights: not with --method or --weight"
            )
        if self.weights is None:
            return
        if self.evaluate is not None:
            raise UsageError("--weights and --evaluate exclude each other: a greedy soup finds its weights")
        self._require_weights("--weights", self.weights)

    def _require_alone(self) -> None:
        """Raises UsageError for options that the recipe decides."""
        decided = ("models", "method", "base", "weights", "method_options", "dtype", "weight")
        if both := effects.given(self, decided):
            raise UsageError(f"--recipe says what is merged and how; leave out {', '.join(both)}")

    def _require_weights(self, flag: str, weights: tuple[float, ...]) -> None:
        if len(weights) != len(self.models):
            raise UsageError(f"{flag}: {len(weights)} for {len(self.models)} models")
        total = sum(weights)
        if not math.isfinite(sum(map(abs, weights))) or (self.method not in FACTORS and not total):
            raise UsageError(f"{flag} must be finite, and their sum not 0; got {' '.join(map(str, weights))}")
        if min(weights) < 0:
            from tna_jax.merging.methods import METHODS  # NumPy, which other options do without

            try:
                METHODS[self.method].shares(weights, len(weights))
            except ValueError as error:
                raise UsageError(f"{flag}: {error}") from error

    def check_tensors(self) -> None:
        """Raises UsageError for weights of single tensors that are not written as pairs."""
        for pattern, weights in self.tensor_weights:
            if error := _patterns("--weight", (pattern,)):
                raise UsageError(error)
            self._require_weights(f"--weight {pattern!r}", weights)

    def check_out(self) -> None:
        """Raises UsageError for a file or folder that must not be written."""
        out = Path(self.out)
        suffix = out.suffix.lower()
        near = difflib.SequenceMatcher(None, suffix, ".safetensors").ratio() > 0.75 or suffix in (".sft", ".st")
        if suffix != ".safetensors" and near:
            raise UsageError(
                f"--out {self.out}: did you mean {out.with_suffix('.safetensors')}? A folder has another name"
            )
        if suffix == ".safetensors" and out.suffix != ".safetensors":
            raise UsageError(f"--out {self.out}: did you mean {out.with_suffix('.safetensors')}?")
        if suffix in OTHER_FORMATS:
            raise UsageError(
                f"--out {self.out}: only safetensors are written; name a file that ends in .safetensors, or a folder"
            )
        if out.exists() and not self.overwrite and not self.dry_run:
            raise UsageError(f"--out {out} exists; name another one, or add --overwrite")
        inputs = [*self.models, *([self.base] if self.base else [])]
        if out.resolve() in {Path(model).resolve() for model in inputs}:
            raise UsageError(f"--out {out} is one of the models to merge; name another one")
        if self.single and self.shard_size is not None:
            raise UsageError(
                f"--shard-size {self.shard_size} does nothing for one file, which {self.out} is; name a folder"
            )
        if out.is_dir() if self.single else out.is_file():
            raise UsageError(f"--out {out} is a {'folder' if self.single else 'file'}; name another one")
        if not self.single and Path.cwd().resolve().is_relative_to(out.resolve()):
            raise UsageError(f"--out {out} is the folder that you are in; name another one")

    @property
    def single(self) -> bool:
        """Whether one file is written."""
        return self.out.endswith(".safetensors")

    @property
    def tensor_weights(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """The pairs of --weight: patterns with weights."""
        found = []
        for text in self.weight or ():
            pattern, _, numbers = text.rpartition("=")
            try:
                found.append((pattern, tuple(float(number) for number in re.split(r"[\s,]+", numbers.strip()))))
            except ValueError:
                pattern = ""
            if not pattern:
                raise UsageError(f"--weight must be written 'REGEX=0.7 0.3', got {text!r}")
        return tuple(found)

    @property
    def choices(self) -> Choices:
        """What the options say of single tensors."""
        return Choices(
            self.only, self.skip, self.tensor_weights, self.dtype, size_of(self.shard_size) if self.shard_size else None
        )

    @property
    def method_values(self) -> dict[str, Any]:
        """The options of the method."""
        return pairs.values(self.method_options)
