"""`tna train`: an ensemble of networks with shared anchors, kept in a run folder for `tna barrier` and whatever fuses them."""

from typing import Any

import numpy as np

from tna_jax import connectivity
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.messages import print_warning, wrote
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.cli.recipes import expanded
from tna_jax.programs.data import own
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.train import report as train_report
from tna_jax.programs.train.options import TrainOptions
from tna_jax.programs.training import anchors, ensembles, recorded_code
from tna_jax.programs.training.initial_models import ModelSpec, build
from tna_jax.programs.training.setup import prepare, record, result_options
from tna_jax.programs.training.splits import splits

RESULT = "train.json"


def plan(settings: TrainOptions) -> list[ModelSpec]:
    """Returns the networks: each has its own data order and, if they differ, its own initial value."""
    different = settings.init == "different"
    return [ModelSpec(settings.seed, settings.ratio, "tna", i if different else 0, i) for i in range(settings.members)]


def run(settings: TrainOptions) -> dict[str, Any]:
    """Trains the ensemble in its run folder and returns what `train.json` holds."""
    settings = expanded(settings)
    settings.check()
    members = plan(settings)
    distributed.start(settings, len(members))
    settings = recorded_code.recorded(settings)
    data, network, init, trainer = prepare(settings)
    settings = own.recorded(settings, data)
    name = f"train-{settings.model_word}-{settings.dataset_word}"
    with Run.create(settings.out, name, (RESULT,), settings.overwrite, settings.resume) as folder:
        record(folder, "train", settings, [settings.seed])
        console.print(
            f"{data.describe()}; {settings.describe()}; {plural(len(members), 'model')}, mask ratio {settings.ratio:g}"
        )
        if not settings.ratio and settings.idle():
            print_warning(settings.idle())
        described = [member._asdict() for member in members]
        start = build(members, init, anchors.recipe(settings))
        trained = ensembles.train(trainer, start, data, settings, folder, described, settings.resume)
        found = connectivity.evaluate(
            network, trained.params, splits(data), state=trained.state, placement=trained.facts["placement"],
            objective=trainer.objective,
        )  # fmt: skip
        names = [measure.name for measure in measures.of_objective(trainer.objective)]
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **trained.facts},
            "config": result_options(settings),
            "network": settings.describe(),
            **measures.as_recorded(trainer.objective),
            "models": [
                {**described[i], "diverged_in_epoch": trained.diverged.get(i)}
                | {
                    f"{name}_{metric}": m.value(metric)[i]
                    for name, m in found.items()
                    for metric in names
                }
                for i in range(len(members))
            ],
        })  # fmt: skip
        folder.write(RESULT, result)
        tested = {f"test_{metric}": float(np.nanmean(found["test"].value(metric))) for metric in names}
        folder.trackers.log({"step": settings.epochs * trained.facts["waves"], **tested})
        if distributed.is_main_process():
            present(train_report.describe(result))
            wrote(f"{folder.folder / RESULT}", "tna", "barrier", str(folder.folder))
        return result
