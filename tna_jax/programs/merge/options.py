"""The options of `tna merge`."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.arguments import Alias, Positional
from tna_jax.programs.cli.choices import Ties

OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".npz", ".npy", ".gguf", ".pkl", ".json")
"""Endings of names that nobody means a folder by."""


@dataclasses.dataclass(frozen=True)
class MergeOptions:
    """Average safetensors checkpoints of any family, streamed: uniform, weighted, or a greedy soup."""

    models: Annotated[tuple[str, ...], Positional("MODEL")]
    """Two or more safetensors files, or folders (model.safetensors, or shards with their index), of equal tensors."""
    out: Annotated[str, Alias("-o")]
    """File or folder to write: a name that ends in .safetensors is one file; a folder has the shards of the first model."""
    weights: tuple[float, ...] | None = None
    """Weight of each model, in their order; they are scaled to sum to 1; default: equal weights."""
    accumulate: Literal["float32", "float64"] = "float32"
    """Dtype of the sums (float64 tensors: always float64). The result has the models' own dtype."""
    evaluate: str | None = None
    """Command that scores a model: it is run with the path of a file or folder as its last argument and must print a number,
    larger is better, as its last line. Makes a greedy soup of the models; score on held-out data, not on the test set."""
    ties: Ties = "keep"
    """Greedy soups: keep or drop an ingredient that leaves the score as it is."""
    overwrite: bool = False
    """Replace --out."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any file is read."""
        collect_errors(lambda: ranges.check(self), self.check_weights, self.check_out)

    def check_weights(self) -> None:
        """Raises UsageError for models and weights that do not go together."""
        if len(self.models) < 2:
            raise UsageError(f"name two or more models to merge, got {len(self.models)}")
        if self.ties != "keep" and self.evaluate is None:
            raise UsageError(f"--ties {self.ties} is for greedy soups: it needs --evaluate COMMAND")
        if self.weights is None:
            return
        if self.evaluate is not None:
            raise UsageError("--weights and --evaluate exclude each other: a greedy soup finds its weights")
        if len(self.weights) != len(self.models):
            raise UsageError(f"--weights: {len(self.weights)} for {len(self.models)} models")
        if not (math.isfinite(math.fsum(self.weights)) and math.fsum(self.weights)):
            raise UsageError(f"--weights must be finite, and their sum not 0; got {' '.join(map(str, self.weights))}")

    def check_out(self) -> None:
        """Raises UsageError for a file or folder that must not be written."""
        out = Path(self.out)
        if out.suffix.lower() in OTHER_FORMATS:
            raise UsageError(
                f"--out {self.out}: only safetensors are written; name a file that ends in .safetensors, or a folder"
            )
        if out.exists() and not self.overwrite:
            raise UsageError(f"--out {out} exists; name another one, or add --overwrite")
        if out.resolve() in {Path(model).resolve() for model in self.models}:
            raise UsageError(f"--out {out} is one of the models to merge; name another one")
        if out.is_dir() if self.single else out.is_file():
            raise UsageError(f"--out {out} is a {'folder' if self.single else 'file'}; name another one")

    @property
    def single(self) -> bool:
        """Whether one file is written."""
        return self.out.endswith(".safetensors")
