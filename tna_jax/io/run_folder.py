"""A finished or running run as a user's program reads it: its options, its models, their parameters. Never writes.

    run = io.open_run("runs/train-digits-20270101-120000")
    run.config["ratio"], len(run.models), run.diverged
    params = run.params(0)         # of model 0, a nested dict of NumPy arrays as Linen has them
    stacked = run.params()         # of all models, leaves (M, ...)

The arrays are those of the newest undamaged checkpoint, each checked against its checksum. Opening a run needs no JAX.
"""

import dataclasses
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tna_jax.io import restore
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import check_format
from tna_jax.io.json_files import read_json

if TYPE_CHECKING:
    from tna_jax.masks import AnchorRecipe

CONFIG, PLAN, PROVENANCE, METRICS, CHECKPOINTS = (
    "config.json", "plan.json", "provenance.json", "metrics.jsonl", "checkpoints",
)  # fmt: skip
"""What a run folder holds, beside the results of its program."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder that was opened for reading.

    Attributes:
      path: the folder.
      config: config.json: the program (`lmc`, `train`, ...) and its options.
      models: what plan.json says of each of the M models: seed, ratio, method, ... (empty before it is written).
    """

    path: Path
    config: dict[str, Any]
    models: tuple[dict[str, Any], ...]

    @property
    def steps(self) -> list[int]:
        """The numbers of its checkpoints, newest first: finished epochs, of all waves together (federate: rounds)."""
        return restore.listed(self.path / CHECKPOINTS)

    @property
    def diverged(self) -> tuple[int | None, ...]:
        """The first epoch with a non-finite loss of each of the M models; None for those that have none."""
        epochs = self._arrays("diverged").get("diverged")
        if epochs is None:
            return (None,) * len(self.models)
        return tuple(int(epoch) if epoch >= 0 else None for epoch in epochs)

    def params(self, model: int | None = None) -> dict[str, Any]:
        """Returns the parameters of one model, or of all with a leading axis M, as a nested dict of NumPy arrays.

        Args:
          model: its number, from 0 as in `models`.

        Raises:
          UsageError: there is no such model, no undamaged checkpoint, or one that holds no models.
        """
        arrays = self._arrays("params")
        if not arrays:
            raise UsageError(
                f"the checkpoints of {self.path} hold no params: it is a run of {self.config.get('program')}"
            )
        return self._cut(arrays, "params", model)

    def state(self, model: int | None = None) -> dict[str, Any]:
        """Returns the norm statistics (BatchNorm) as `params` does the parameters; empty for networks without any."""
        arrays = self._arrays("state")
        return self._cut(arrays, "state", model) if arrays else {}

    def anchor_recipe(self, model: int = 0) -> "AnchorRecipe":
        """Returns how the anchors of a model were drawn; `.draw(params)` draws its mask again, see `tna_jax.io.runs`."""
        from tna_jax.io import runs

        return runs.anchor_recipe(self.path, model)

    def result(self, name: str) -> dict[str, Any]:
        """Reads a results file of the run: `lmc.json`, `train.json`, `barrier.json`, ...; raises UsageError without one."""
        return read_object(self.path / name)

    def _arrays(self, part: str) -> dict[str, np.ndarray]:
        step, arrays, damaged = restore.newest_parts(self.path / CHECKPOINTS, part)
        for bad, reason in damaged.items():
            warnings.warn(f"checkpoint {bad} of {self.path} is damaged: {reason}; using {step}", stacklevel=3)
        return arrays

    def _cut(self, arrays: dict[str, np.ndarray], part: str, model: int | None) -> dict[str, Any]:
        count = len(next(iter(arrays.values())))
        if model is not None and not 0 <= model < count:
            raise UsageError(f"{self.path} has no model {model}: the numbers go from 0 to {count - 1}")
        chosen = arrays if model is None else {name: array[model] for name, array in arrays.items()}
        tree: dict[str, Any] = restore.nested(chosen)[part]
        return tree


def open_run(folder: str | Path) -> RunFolder:
    """Opens a run folder for reading; running, interrupted and finished runs alike.

    Args:
      folder: the one that `tna lmc`, `tna train`, ... was told with `--out`, or made under `runs/`.

    Raises:
      UsageError: it is not a run folder, or a later version of this project wrote it.
    """
    path = Path(folder)
    require_run(path)
    models = read_plan(path)[0] if (path / PLAN).is_file() else []
    return RunFolder(path, read_object(path / CONFIG), tuple(models))


def require_run(folder: Path) -> None:
    """Raises UsageError for what is no run folder; one that was a run, or was to become one, is told from others."""
    if (folder / CONFIG).is_file():
        return
    if any((folder / name).exists() for name in (PLAN, METRICS, CHECKPOINTS)):
        cure = f": that file is lost; {CURES[CONFIG]}"
    elif (folder / PROVENANCE).is_file():
        cure = ": its program ended before anything was saved; the same command again starts it"
    else:
        cure = ""
    raise UsageError(f"{folder} is not a run folder (it has no {CONFIG}){cure}")


CURES = {
    CONFIG: "the command that started the run writes the same file into another --out: copy it from there",
    PLAN: "without that file tna resume {folder} writes it again (imported models: tna import them again)",
    PROVENANCE: "a run goes on without that file: remove it",
}
OF_RESULTS = "the program that wrote it writes it again (results of training: tna resume {folder})"


def cure_of(file: Path) -> str:
    """Returns what helps where a JSON file of a run is missing or damaged."""
    return CURES.get(file.name, OF_RESULTS).format(folder=file.parent)


def read_object(file: Path) -> dict[str, Any]:
    """Reads a JSON object of a run.

    Raises:
      UsageError: it cannot be read, is not an object (what helps is said), or a later version of this project wrote it.
    """
    cure = cure_of(file)
    try:
        value = read_json(file)
    except UsageError as error:
        raise UsageError(f"{error}; {cure}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{file}: expected a JSON object, found {type(value).__name__}; {cure}")
    check_format(value, str(file))
    return value


def read_plan(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Reads plan.json: what each model is, and how many train at once.

    Raises:
      UsageError: it cannot be read, or holds anything else.
    """
    plan = read_object(folder / PLAN)
    models, wave = plan.get("models"), plan.get("at_once")
    cure = cure_of(folder / PLAN)
    if not isinstance(models, list) or not models or not all(isinstance(model, dict) for model in models):
        raise UsageError(f"{folder / PLAN}: models must be a list of one object for each model; {cure}")
    if type(wave) is not int or wave < 1:
        raise UsageError(f"{folder / PLAN}: at_once must be a number above 0, found {wave!r}; {cure}")
    return models, wave
