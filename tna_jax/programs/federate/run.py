"""`tna federate`: federated learning with and without anchors, simulated: accuracy of the server's model after each round."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.federated import PROXY, stream
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.progress import console, print_user_error
from tna_jax.programs.data import own
from tna_jax.programs.data.records import only_streamed
from tna_jax.programs.federate import health
from tna_jax.programs.federate import report as federate_report
from tna_jax.programs.federate import rounds as federate_rounds
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.setup import build_federation, resolved, schedule
from tna_jax.programs.reports.present import present
from tna_jax.programs.reports.rounds import LAST
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training.builders import build_model
from tna_jax.programs.training.setup import load, record, result_options
from tna_jax.programs.training.splits import streamed

RESULTS = ("federate.json", "federate.png")


def run(settings: FederateOptions) -> dict[str, Any]:
    """Runs all schedules and seeds of `settings` in its run folder and returns what `federate.json` holds."""
    if settings.list:
        federate_report.listing()
        return {}
    settings.check()
    settings = resolved(settings)
    distributed.start(settings, settings.clients)
    prepared = prepare(settings)
    settings = own.recorded(settings, prepared.data)
    seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
    name = f"federate-{settings.algorithm}-{settings.dataset_word}"
    with Run.create(settings.out, name, RESULTS, settings.overwrite, settings.resume) as folder:
        record(folder, "federate", settings, seeds)
        console.print(
            f"{prepared.data.describe()}; {settings.describe()}; {federate_report.headline(result_options(settings))}"
        )
        plan = [{"seed": seed, "anchors": kind} for seed in seeds for kind in settings.anchors]
        progress, facts = federate_rounds.federate(prepared, settings, plan, folder)
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **facts},
            "config": result_options(settings),
            "network": settings.describe(),
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(progress.finals["params"])),
            "test_examples": len(prepared.data.test.labels),
            "runs": [summary(line, progress.history, i, prepared.data.num_classes) for i, line in enumerate(plan)],
        })  # fmt: skip
        folder.write(RESULTS[0], result)
        if distributed.is_main_process():
            present(federate_report.describe(result), folder.folder / RESULTS[1])
            print(f"wrote {folder.folder / RESULTS[0]} and {folder.folder / RESULTS[1]}")
        return result


def exit_code(result: dict[str, Any]) -> int:
    """Returns 1 where a federation was stopped since it learned nothing any more, else 0."""
    stopped = [run for run in result.get("runs", []) if run["stopped_after_round"] is not None]
    for run in stopped:
        print_user_error(
            f"tna federate: {run['anchors']}, seed {run['seed']}, was stopped after round {run['stopped_after_round']}: it learned "
            "nothing any more. A smaller --learning-rate, --momentum 0, or fewer --epochs may help; what it did is saved"
        )
    return 1 if stopped else 0


def prepare(settings: FederateOptions) -> federate_rounds.Prepared:
    """Builds what the options stand for; raises UsageError where they do not go together."""
    data, network, init = load(settings)
    if streamed(data):
        raise UsageError(f"--dataset {only_streamed(settings.dataset)}")
    module = build_model(settings, data.num_classes, settings.precision)
    federation = build_federation(settings, network, module, data.preprocess, data.num_classes)
    train: Any = data.train
    proxy: Any = ()
    if federation.server.distillation is not None:
        kept = settings.proxy_examples
        if kept >= len(train.labels):
            raise UsageError(f"--proxy-examples {kept}: there are {len(train.labels)} training examples in all")
        order = np.asarray(
            jax.random.permutation(stream(jax.random.key(settings.first_seed), PROXY), len(train.labels))
        )
        proxy, rest = jnp.asarray(train.images[order[:kept]]), np.sort(order[kept:])
        train = type(train)(train.images[rest], train.labels[rest])
    try:
        jax.eval_shape(lambda key: schedule(settings, "pfn").draw(key, init(key)[0], 0.0), jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"--where: {error}") from error
    return federate_rounds.Prepared(data, train, proxy, federation, init)


def summary(line: federate_rounds.Line, history: dict[str, np.ndarray], run: int, classes: int) -> dict[str, Any]:
    """Returns what `federate.json` holds of one run; `turnout` counts rounds by client, of those to which anything happened."""
    values: dict[str, Any] = {name: history[name][run] for name in federate_rounds.HISTORY}
    last = values["accuracy"][-LAST:].astype(np.float64)
    befell = history["clients"][run]  # (rounds, N)
    bits = {"dropped": federate_rounds.DROPPED, "late": federate_rounds.LATE, "refused": federate_rounds.REFUSED}
    counts = {name: np.count_nonzero(befell & bit, axis=0) for name, bit in bits.items()}
    turnout = {name: {str(k): int(n) for k, n in enumerate(column) if n} for name, column in counts.items()}
    took_place = befell.any(axis=1)
    return {
        **line,
        "diverged_in_round": health.diverged_in_round(values["accuracy"], values["loss"], classes),
        "stopped_after_round": None if took_place.all() else int(took_place.sum()),
        "score": last.mean(),
        "score_std": last.std(ddof=1) if len(last) > 1 else None,
        "turnout": turnout,
        **values,
    }
