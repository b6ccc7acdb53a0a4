"""`tna train`: an ensemble of networks with shared anchors, kept in a run folder for `tna barrier` and whatever fuses them."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.table import Table

from tna_jax import connectivity
from tna_jax.io.errors import collect_errors, require_known
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.launch import launch
from tna_jax.programs.cli.progress import console, plural, wide_console
from tna_jax.programs.cli.ranges import COUNT, NOT_NEGATIVE, SHARE
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import ensembles
from tna_jax.programs.training.initial_models import ModelSpec, build
from tna_jax.programs.training.setup import Settings, prepare, record, result_options

RESULT = "train.json"
INITS = ("same", "different")


@dataclasses.dataclass(frozen=True)
class TrainOptions(Settings):
    """Options of `tna train`."""

    members: int = 8
    """Number of networks."""
    ratio: float = 0.4
    """Mask ratio: share of ANCHORED (fixed) weights, in [0, 1); 0 is plain training."""
    init: str = "same"
    """Initial values: same, or different (with the anchors of the first network in all)."""
    seed: int = 0
    """Seed of initial values, anchors and data orders."""

    def check(self) -> None:
        """Raises UsageError for whatever can be refused before any work."""
        collect_errors(
            super().check,
            lambda: ranges.require(self, {"members": COUNT, "ratio": SHARE, "seed": NOT_NEGATIVE}),
            lambda: require_known("--init", [self.init], INITS),
        )

    def plan(self) -> list[ModelSpec]:
        """The networks: each has its own data order and, if they differ, its own initial value."""
        different = self.init == "different"
        return [ModelSpec(self.seed, self.ratio, "tna", i if different else 0, i) for i in range(self.members)]


def main(arguments: list[str]) -> int:
    """The program; returns its exit code."""
    return launch("train", TrainOptions, run, arguments, __doc__)


def run(settings: TrainOptions) -> dict[str, Any]:
    """Trains the ensemble in its run folder and returns what `train.json` holds."""
    settings.check()
    members = settings.plan()
    settings.start(len(members))
    data, network, init, trainer = prepare(settings)
    name = f"train-{settings.model}-{settings.dataset.replace(':', '-')}"
    with Run.create(settings.out, name, (RESULT,), settings.overwrite, settings.resume) as folder:
        record(folder, "train", settings, [settings.seed])
        console.print(
            f"{data.describe()}; {settings.describe()}; {plural(len(members), 'model')}, mask ratio {settings.ratio:g}"
        )
        if not settings.ratio and settings.idle():
            console.print(f"warning: {settings.idle()}", highlight=False)
        described = [member._asdict() for member in members]
        start = build(members, init, settings)
        trained = ensembles.train(trainer, start, data, settings, folder, described, settings.resume)
        splits = {
            name: (jnp.asarray(split.images), jnp.asarray(split.labels))
            for name, split in (("train", data.train), ("test", data.test))
        }
        found = connectivity.evaluate(
            network, trained.params, splits, state=trained.state, placement=trained.facts["placement"]
        )  # fmt: skip
        result = {
            "provenance": {**folder.read(PROVENANCE), **trained.facts},
            "config": result_options(settings),
            "network": settings.describe(),
            "models": [
                {**described[i], "diverged_in_epoch": trained.diverged.get(i)}
                | {
                    f"{name}_{metric}": getattr(m, metric)[i]
                    for name, m in found.items()
                    for metric in ("accuracy", "loss")
                }
                for i in range(len(members))
            ],
        }
        folder.write(RESULT, result)
        tested = {
            f"test_{metric}": float(np.nanmean(getattr(found["test"], metric))) for metric in ("accuracy", "loss")
        }
        folder.views.log({"step": settings.epochs * trained.facts["waves"], **tested})
        if distributed.is_main_process():
            _table(to_json(result))
            print(f"wrote {folder.folder / RESULT}; next: tna barrier {folder.word}")
        return to_json(result)


def _table(result: dict[str, Any]) -> None:
    config = result["config"]
    lines = Table(
        title=f"{config['dataset']}, {result['network']}, {plural(config['epochs'], 'epoch')}, mask ratio {config['ratio']:g}",
        title_justify="left",
    )
    columns = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")
    for column in ("model", *(name.replace("_", " ") for name in columns)):
        lines.add_column(column, justify="right")
    for i, model in enumerate(result["models"]):
        values = [model[name] for name in columns]
        late = model["diverged_in_epoch"]
        cells = ["-" if v is None else f"{v:.4f}" for v in values]
        lines.add_row(f"{i}" if late is None else f"{i} (diverged in epoch {late})", *cells)
    finite = [[m[name] for name in columns] for m in result["models"] if None not in [m[name] for name in columns]]
    if len(finite) > 1:
        array = np.array(finite)
        spread = zip(array.mean(0), array.std(0, ddof=1), strict=True)
        lines.add_section()
        lines.add_row("mean ± std", *(f"{mean:.4f} ± {std:.4f}" for mean, std in spread))
    wide_console().print(lines)
