"""`tna federate`: federated learning with and without anchors, simulated: accuracy of the server's model after each round."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax.federated import PROXY, costs, evaluation, partition, personalization, privacy, stream
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import console, print_user_error
from tna_jax.programs.data import own
from tna_jax.programs.data.records import only_streamed
from tna_jax.programs.federate import client_marks, demonstration, health, stages
from tna_jax.programs.federate import report as federate_report
from tna_jax.programs.federate import rounds as federate_rounds
from tna_jax.programs.federate.client_scores import BY_CLIENT
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.prepared import Prepared
from tna_jax.programs.federate.progress import Progress, columns
from tna_jax.programs.federate.setup import build_federation, client_examples, deal, resolved, schedule
from tna_jax.programs.reports import measures
from tna_jax.programs.reports.present import present
from tna_jax.programs.reports.rounds import LAST
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.system import distributed, memory
from tna_jax.programs.training import objective_fit, recorded_code
from tna_jax.programs.training.builders import build_model
from tna_jax.programs.training.setup import load, record, result_options
from tna_jax.programs.training.splits import streamed

RESULTS = ("federate.json", "federate.png")


def run(settings: FederateOptions) -> dict[str, Any]:
    """Runs all schedules and seeds of `settings` in its run folder and returns what `federate.json` holds."""
    if settings.list:
        federate_report.listing()
        return {}
    if demonstration.is_asked_for(settings):
        settings = demonstration.demonstration(settings)
        console.print(
            f"nothing was asked for, so this is the demonstration (docs/federated.md): {demonstration.command()}"
        )
    settings.check()
    settings = resolved(settings)
    privacy_of(settings)  # before anything expensive
    distributed.start(settings, settings.clients)
    settings = recorded_code.recorded(settings)
    prepared = prepare(settings)
    settings = dataclasses.replace(own.recorded(settings, prepared.data), clients=prepared.federation.clients)
    seeds = list(range(settings.first_seed, settings.first_seed + settings.seeds))
    name = f"federate-{settings.algorithm}-{settings.dataset_word}"
    with Run.create(settings.out, name, RESULTS, settings.overwrite, settings.resume) as folder:
        if settings.resume:
            stages.extend(folder, settings.rounds, RESULTS)
        record(folder, "federate", settings, seeds)
        console.print(
            f"{prepared.data.describe()}; {settings.describe()}; {federate_report.headline(result_options(settings))}"
        )
        if remark := dealt_anew(prepared.data, settings.partition):
            console.print(remark)
        plan = [{"seed": seed, "anchors": kind} for seed in seeds for kind in settings.anchors]
        progress, facts = federate_rounds.federate(prepared, settings, plan, folder)
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **facts},
            "config": result_options(settings),
            "network": settings.describe(),
            "parameters": sum(leaf[0].size for leaf in jax.tree.leaves(progress.finals["params"])),
            "test_examples": len(prepared.data.test.labels),
            "runs": [
                summary(line, progress, i, prepared) | costs_of(prepared, settings, line, progress.history, i)
                for i, line in enumerate(plan)
            ],
            **partition_of(prepared, settings),
            **privacy_of(settings),
            **measures.as_recorded(prepared.federation.objective),
        })  # fmt: skip
        folder.write(RESULTS[0], result)
        if distributed.is_main_process():
            present(federate_report.describe(result), folder.folder / RESULTS[1])
            where = folder.folder
            wrote(f"{where / RESULTS[0]} and {where / RESULTS[1]}", "tna", "report", str(where))
        return result


def exit_code(result: dict[str, Any]) -> int:
    """Returns 1 where a federation learned nothing any more, and was stopped or came to its end so, else 0."""
    failed = False
    for run in result.get("runs", []):
        what = _failure(run, result.get("config", {}))
        failed = failed or bool(what)
        if what:
            print_user_error(f"tna federate: {run['anchors']}, seed {run['seed']}, {what}; what it did is saved")
    return 1 if failed else 0


def _failure(run: dict[str, Any], config: dict[str, Any]) -> str:
    """What became of a run that learned nothing; empty for others."""
    advice = "A smaller --learning-rate, --momentum 0, or fewer --epochs may help"
    if config.get("server_learning_rate") is not None:
        advice = advice.replace("A smaller", "A smaller --server-learning-rate or")
    if config.get("dp_noise") is not None:
        advice = "The noise may be larger than what so few clients learn: more --clients, a larger --participation or a smaller --dp-noise help"
    if not any(run["taken"]):
        return "learned nothing: no reply was accepted in any round"
    if run["stopped_after_round"] is not None and not run.get("stalled", False):
        return f"was stopped after round {run['stopped_after_round']}: it learned nothing any more. {advice}"
    if run.get("no_better_than_guessing", False):
        return f"learned nothing: in no round its model was better than guessing. {advice}, or more --rounds where it learns slowly"
    if run["diverged_in_round"] is not None:
        return f"diverged: from round {run['diverged_in_round']} on its model is worse than useless. {advice}"
    return ""


def prepare(settings: FederateOptions) -> Prepared:
    """Builds what the options stand for; raises UsageError where they do not go together."""
    data, network, init = load(settings)
    if streamed(data):
        raise UsageError(f"--dataset {only_streamed(settings.dataset)}")
    owners = data.owners
    if settings.partition == "natural":
        settings = dataclasses.replace(settings, clients=_num_owners(settings, data))
        settings.check_named()
    if settings.objective != "classification" or settings.own_model:
        objective_fit.check_fit(settings, data, network, init)
    module = None if settings.own_model else build_model(settings, data.num_classes, settings.precision)
    federation = build_federation(settings, network, module, data, init)
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
        owners = None if owners is None else owners[rest]
    least = settings.clients * max(settings.least_examples, settings.shards if settings.partition == "shard" else 1)
    may_not = settings.partition != "natural" and (least > len(train.labels) or settings.objective != "classification")
    if may_not or settings.held_out:  # dealing says what is wrong: before there is a folder
        client_examples(settings, jax.random.key(settings.first_seed), train.labels, owners)
    try:
        jax.eval_shape(lambda key: schedule(settings, "pfn").draw(key, init(key)[0], 0.0), jax.random.key(0))
    except ValueError as error:
        raise UsageError(f"--where: {error}") from error
    head = None
    if settings.personalize == "head":
        params, state = jax.eval_shape(init, jax.random.key(0))
        inputs = (
            jnp.float32 if module is not None else data.train.images.dtype
        )  # a network of one's own scales them itself
        batch = jax.ShapeDtypeStruct((1, *data.image_shape), inputs)
        try:
            head = personalization.head(network if module is None else module, params, state, batch)
        except ValueError as error:
            raise UsageError(f"--personalize head: {error}") from error
    return Prepared(data, train, proxy, federation, init, owners, head)


def dealt_anew(data: Any, partition: str) -> str:
    """Returns what is said where the data has natural clients and others are made; empty elsewhere."""
    if data.owners is None or partition == "natural":
        return ""
    return (
        f"{data.name} says whose each example is, and --partition {partition} deals them out anew; --partition natural leaves them with "
        "their owners"
    )


def _num_owners(settings: FederateOptions, data: Any) -> int:
    """The number of natural clients; raises UsageError where the data does not say whose its examples are."""
    if data.owners is None:
        raise UsageError(
            f"--partition natural: {data.name} does not say whose its examples are: name --client-column of a table, a folder with a file "
            "for each client, or a .npz with client_train"
        )
    return len(np.unique(data.owners))


def summary(line: federate_rounds.Line, progress: Progress, run: int, prepared: Prepared) -> dict[str, Any]:
    """Returns what `federate.json` holds of one run; `turnout` counts rounds by client, of those to which anything happened."""
    history, scores = progress.history, progress.finals.get("scores", {})
    names = [name for name in (*columns(prepared.federation), *BY_CLIENT) if name in history]
    values: dict[str, Any] = {name: history[name][run] for name in names}
    headline, guessing = measures.of_objective(prepared.federation.objective)[0], prepared.guessing
    last = values[headline.name][-LAST:].astype(np.float64)
    befell = history["clients"][run]  # (rounds, N)
    bits = {"dropped": client_marks.DROPPED, "late": client_marks.LATE, "refused": client_marks.REFUSED}
    counts = {name: np.count_nonzero(befell & bit, axis=0) for name, bit in bits.items()}
    turnout = {name: {str(k): int(n) for k, n in enumerate(column) if n} for name, column in counts.items()}
    took_place, asked = befell.any(axis=1), (befell & client_marks.ASKED).any(axis=1)
    accuracy, loss, taken = (values[name][asked] for name in ("accuracy", "loss", "taken"))
    useless = health.never_better_than_guessing(accuracy, loss, guessing, prepared.chance)
    with np.errstate(invalid="ignore"):  # of a loss that is not finite there is no spread
        spread = last.std(ddof=1) if len(last) > 1 else None
    by_client = {name: array[run] for name, array in scores.items() if np.isfinite(array[run]).any()}
    return {
        **line,
        "diverged_in_round": health.diverged_in_round(values["accuracy"], values["loss"], guessing),
        "stopped_after_round": None if took_place.all() else int(took_place.sum()),
        "score": last.mean(),
        "score_std": spread,
        "stalled": not took_place.all() and not health.hopeless(accuracy, loss, taken, guessing),
        **({"no_better_than_guessing": True} if useless else {}),
        "turnout": turnout,
        "by_client": {
            name: {"values": array, **evaluation.summary(array)._asdict()} for name, array in by_client.items()
        },
        **values,
    }


def costs_of(
    prepared: Prepared,
    settings: FederateOptions,
    line: federate_rounds.Line,
    history: dict[str, np.ndarray],
    run: int,
) -> dict[str, Any]:
    """Returns bytes up and down and local steps by round, over all clients."""
    federation, marks = prepared.federation, history["clients"][run]
    params, state = jax.eval_shape(prepared.init, jax.random.key(0))
    size = memory.size(params)
    variates = memory.size(
        jax.eval_shape(federation.algorithm.message, jax.eval_shape(federation.algorithm.init_server, params))
    )
    shared = memory.size(state) if federation.norm == "shared" else 0
    dealt = deal(
        settings, jax.random.key(line["seed"]), prepared.train.labels, prepared.data.test.labels[:0], prepared.owners
    )
    asked = (marks & client_marks.ASKED) > 0
    answered = asked & ((marks & client_marks.DROPPED) == 0)
    late = (marks & client_marks.LATE) > 0
    full = federation.num_steps(dealt.clients.count)
    steps = np.ceil(np.where(late, np.float32(settings.straggler_share), np.float32(1)) * full[None].astype(np.float32))
    counted = costs.of_rounds(
        costs.Payload(size + variates, size, variates, shared), history["live"][run], asked, answered, steps
    )
    return {"bytes_up": counted.up, "bytes_down": counted.down, "local_steps": counted.steps}


SHOWN = 20_000
"""Entries of a partition's table up to which federate.json holds it."""


def partition_of(prepared: Prepared, settings: FederateOptions) -> dict[str, Any]:
    """Returns the first seed's training examples by client and class, of partitions that are not too large to be looked at."""
    labels, classes = prepared.train.labels, prepared.data.num_classes
    if not prepared.data.class_names or settings.clients * classes > SHOWN:
        return {}
    dealt = deal(settings, jax.random.key(settings.first_seed), labels, labels[:0], prepared.owners)
    return {
        "partition": {"seed": settings.first_seed, "counts": partition.class_counts(dealt.clients, labels, classes)}
    }


def privacy_of(settings: FederateOptions) -> dict[str, Any]:
    """Returns epsilon and delta of a private federation.

    Raises:
      UsageError: the accountant is not installed.
    """
    if settings.dp_noise is None:
        return {}
    spent = accountant(settings, settings.rounds)
    return {"privacy": {"epsilon": spent, "delta": settings.dp_delta, "rounds": settings.rounds}}


def accountant(settings: FederateOptions, rounds: int) -> float:
    """Returns epsilon after so many rounds; raises UsageError where dp-accounting is not installed."""
    assert settings.dp_noise is not None
    try:
        return privacy.epsilon(settings.dp_noise, settings.participation, rounds, settings.dp_delta)
    except ImportError as error:
        raise UsageError(
            f"--dp-noise: epsilon is computed by dp-accounting: pip install 'tna-jax[privacy]' ({error})"
        ) from error
