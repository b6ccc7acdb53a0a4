"""Runs federations in a run folder, one after the other: a line for each round, checkpoints, safe stops."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import placement as placement_lib
from tna_jax.federated import INIT, simulation, stream
from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.evaluation import ByClient, TestSet, accuracy_of, by_client, evaluate_examples
from tna_jax.federated.faults import asked
from tna_jax.federated.federation import Federation, Server, init_server
from tna_jax.federated.personalization import fine_tune
from tna_jax.federated.simulation import Round
from tna_jax.io.errors import UsageError
from tna_jax.io.restore import listed
from tna_jax.metrics import AnyMetrics
from tna_jax.programs.cli.progress import console, stoppable
from tna_jax.programs.data import Dataset, Split
from tna_jax.programs.federate import health
from tna_jax.programs.federate import stages as stages_lib
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.progress_bar import Bar
from tna_jax.programs.federate.setup import Dealt, build_faults, deal, schedule
from tna_jax.programs.federate.stages import Stages
from tna_jax.programs.reports import measures
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import PLAN, Run
from tna_jax.programs.runs.restore import restore
from tna_jax.programs.system import memory


class Prepared(NamedTuple):
    """What the options stand for."""

    data: Dataset
    train: Split
    """What the clients share: the training split, without proxy data."""
    proxy: Any
    """(P, ...) the server's, `()` for none."""
    federation: Federation
    init: Any
    """A key to (params, state)."""
    owners: Any = None
    """(N,) whose each training example is, of natural clients."""
    head: Any = None
    """A mask in which the last layer is live, where it is asked for."""

    @property
    def classes(self) -> int:
        """The number of classes, 0 for objectives other than classification."""
        return self.data.num_classes if self.federation.objective.classes else 0

    @property
    def guessing(self) -> float:
        """The loss of a model that answers every input alike; NaN if it is unknown."""
        return health.loss_of_guessing(self.federation.objective, self.data.num_classes, self.data.test.labels)

    @property
    def chance(self) -> float:
        """The accuracy of a model that answers every input alike, at best; NaN for objectives other than classification."""
        counts = np.unique(self.data.test.labels, return_counts=True)[1] if self.classes else np.array([np.nan])
        return float(counts.max() / counts.sum())


Line = dict[str, Any]
"""One run of the plan: its `seed` and its mask schedule `anchors`."""


def named(line: Line) -> str:
    """Returns what a run of the plan is called on the screen."""
    return f"{line['anchors']}, seed {line['seed']}"


HISTORY = ("accuracy", "loss", "train_loss", "live", "taken")
"""Columns of federate.json by round; the names are its format. The server's model on the test set; mean training loss over the
clients' steps; share of entries that were live in the round; number of updates accepted."""
BY_CLIENT = ("client_mean", "client_worst", "client_std")
"""Likewise: accuracies of the clients on held-out examples of their own; mean, mean of the worst tenth, standard deviation."""
SCORES = ("accuracy", "personalized")
"""Of each client at the end: of the server's model, and of what the client makes of it."""
ASKED, DROPPED, LATE, REFUSED, NOBODY = 1, 2, 4, 8, 16
"""Bits of what befell a client in a round. `NOBODY`, of all clients: none was drawn, as may be with privacy; without any bit there was no round."""


class Progress(NamedTuple):
    """The state of all runs, as a checkpoint holds it: NumPy, but for the server. `finals` are written to in place."""

    server: Server
    """Of the present run."""
    client_states: ClientState
    """(N, ...), likewise."""
    finals: dict[str, Any]
    """`params` and `state` of every run's server (R, ...), as `tna export` reads them; `scores` of its clients, (R, N) each."""
    history: dict[str, np.ndarray]
    """(R, rounds) each, and `clients` (R, rounds, N)."""

    def tree(self, rounds: int | None = None) -> dict[str, Any]:
        """Returns a copy on the host, of the first `rounds` alone; its names, `own` for the clients' states, are the format of checkpoints."""
        server = placement_lib.to_host(self.server)
        history = {name: array[:, :rounds] for name, array in self.history.items()}
        parts = {"server": server, "own": self.client_states, "history": history, **self.finals}
        copied: dict[str, Any] = jax.tree.map(np.array, parts)
        return copied


def columns(federation: Federation) -> tuple[str, ...]:
    """Returns the columns by round: `HISTORY`, and the metrics of another objective than classification."""
    return (
        *HISTORY,
        *(measure.name for measure in measures.of_objective(federation.objective) if measure.name not in HISTORY),
    )


def empty(federation: Federation, init: Any, runs: int, rounds: int, scored: bool = True) -> Progress:
    """Returns the state before the first round; `scored`: with the clients' scores, which runs of before have not."""
    params, state = (
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), part) for part in jax.eval_shape(init, jax.random.key(0))
    )
    server = init_server(federation, params, state)
    finals = jax.tree.map(lambda x: np.zeros((runs, *x.shape), x.dtype), {"params": params, "state": state})
    history = {
        name: np.full((runs, rounds), np.nan, np.float32)
        for name in columns(federation) + (BY_CLIENT if scored else ())
    }
    history["clients"] = np.zeros((runs, rounds, federation.clients), np.uint8)
    if scored:
        finals["scores"] = {name: np.full((runs, federation.clients), np.nan, np.float32) for name in SCORES}
    return Progress(server, simulation.init_client_states(federation, server), finals, history)


def federate(
    prepared: Prepared, settings: FederateOptions, plan: list[Line], folder: Run
) -> tuple[Progress, dict[str, Any]]:
    """Runs every run of `plan`, or resumes from what the folder holds.

    Returns:
      The state after the last round, and facts for the provenance.

    Raises:
      UsageError: too little memory or too few examples, or a checkpoint that does not fit.
      Interrupted: a stop was asked for; everything is saved.
    """
    resumed = settings.resume and folder.has(PLAN)
    scored = not resumed or folder.has(stages_lib.FILE)
    stages = stages_lib.read(folder, len(plan), settings.rounds) if resumed else Stages(len(plan), (settings.rounds,))
    group = folder.plan()[1] if resumed else group_size(prepared, settings)
    if not resumed:
        stages_lib.begin(folder, stages)
        folder.write_plan(plan, group)
    if group < min(asked(settings.clients, settings.participation), simulation.GROUP):
        console.print(f"not all clients of a round fit into the memory at once: groups of {group}")
    progress = empty(prepared.federation, prepared.init, len(plan), settings.rounds, scored)
    begin, progress = _restored(folder, progress, stages) if resumed else (0, progress)
    folder.keep_logged(begin)
    machine = _Machine(prepared, settings, folder, group)
    headline = measures.of_objective(prepared.federation.objective)[0]
    frequency = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with (
        Checkpoints(folder.checkpoints, *frequency) as saved,
        stoppable("round") as stop,
        Bar(stages.steps, begin, headline.name) as bar,
    ):
        for step in range(begin, stages.steps):
            run, number, first, end = stages.at(step)
            if number == first > 0 and len(plan) > 1:
                server, client_states = stages_lib.end_of(folder, run, first, _standing(progress))
                server = Server(*jax.tree.map(jnp.asarray, tuple(server)))
                progress = progress._replace(server=server, client_states=client_states)
            if why := stopped(progress.history, run, number, prepared, settings.patience):
                progress = machine.stay(progress, run, number)
                if (run, why) not in machine.named:
                    machine.named.add((run, why))
                    console.print(
                        f"{named(plan[run])}: stopped before round {number + 1} of {settings.rounds}: {why}; its model stays as it is"
                    )
            else:
                progress = machine.round(progress, run, plan[run], number, step)
            if number + 1 == settings.rounds and scored:
                machine.score_clients(progress, run, plan[run], number)
            if number + 1 == end and len(plan) > 1 and scored:
                stages_lib.keep(folder, run, end, placement_lib.to_host(_standing(progress)))
            bar.round(plan[run], number, settings.rounds, progress.history[headline.name][run])
            done = step + 1
            if done == stages.steps or stop.asked or saved.due(done):
                saved.wait()
                saved.save(done, progress.tree(end))
            if stop.asked and done < stages.steps:
                saved.wait()
                console.print(
                    f"stopped after round {number + 1} of {settings.rounds} of {named(plan[run])}; saved in {folder.folder}"
                )
                console.print(f"to resume: tna resume {folder.quoted_path}")
                stop.check()
    stages_lib.forget(folder, stages)
    return progress, {"placement": machine.placement, "group": group, "peak_bytes": memory.peak()}


def _standing(progress: Progress) -> Any:
    """What the present run continues from."""
    return (tuple(progress.server), progress.client_states)


def _restored(folder: Run, progress: Progress, stages: Stages) -> tuple[int, Progress]:
    """The newest undamaged checkpoint; one of an earlier stage has fewer rounds."""
    saved = listed(folder.checkpoints)
    widths = list(dict.fromkeys(stages.at(step - 1)[3] for step in saved if 0 < step <= stages.steps))
    begin, tree = 0, progress.tree()
    for width in widths:
        try:
            begin, tree = restore(folder.checkpoints, progress.tree(width))
            break
        except UsageError:
            if width == widths[-1]:
                raise
    history = {name: array.copy() for name, array in progress.history.items()}
    for name, array in tree["history"].items():
        history[name][:, : array.shape[1]] = array
    server = Server(*jax.tree.map(jnp.asarray, tuple(tree["server"])))
    finals = {name: tree[name] for name in progress.finals}
    return begin, Progress(server, tree["own"], finals, history)


def stopped(history: dict[str, np.ndarray], run: int, number: int, prepared: Prepared, patience: int | None) -> str:
    """Says why round `number` of a run does not take place; empty if it does. It depends on the rounds before alone."""
    accuracy, loss, accepted = (history[name][run, :number] for name in ("accuracy", "loss", "taken"))
    asked_any = (history["clients"][run, :number] & ASKED).any(axis=1)  # rounds that took place, and not with nobody
    measured = accuracy[asked_any], loss[asked_any], accepted[asked_any]
    score = measured[0] if prepared.classes else -measured[1]
    return health.hopeless(*measured, prepared.guessing) or health.stalled(score, patience)


class _Machine:
    """What a round needs beside the state: data on the devices, the partition of the present run."""

    def __init__(self, prepared: Prepared, settings: FederateOptions, folder: Run, group: int):
        self.prepared, self.settings, self.folder, self.group = prepared, settings, folder, group
        data = (jnp.asarray(prepared.train.images), jnp.asarray(prepared.train.labels))
        self.data = placement_lib.replicate(data, placement_lib.mesh())
        self.test = TestSet(prepared.data.test.images, prepared.data.test.labels)
        self.held: TestSet | None = None
        shapes = jax.eval_shape(prepared.init, jax.random.key(0))
        self.placement = simulation.resolve(prepared.federation, shapes[0], shapes[1], self.data[0])
        self.seed: int | None = None
        self.dealt: Dealt | None = None
        self.named: set[tuple[int, str]] = set()

    def of_seed(self, seed: int) -> Dealt:
        """Returns who has which examples under a seed."""
        if self.dealt is None or self.seed != seed:
            train, settings = self.prepared.train, self.settings
            test_labels = self.prepared.data.test.labels
            dealt = deal(settings, jax.random.key(seed), train.labels, test_labels, self.prepared.owners)
            self.seed, self.dealt, self.held = seed, dealt, None
            if settings.held_out:
                self.held = TestSet(train.images[dealt.held], train.labels[dealt.held])
        return self.dealt

    def round(self, progress: Progress, run: int, line: Line, number: int, step: int) -> Progress:
        """Returns the state after round `number` of run `run`; its first round begins from scratch."""
        federation, settings, began = self.prepared.federation, self.settings, time.perf_counter()
        root, dealt = jax.random.key(line["seed"]), self.of_seed(line["seed"])
        server, client_states = progress.server, progress.client_states
        if number == 0:
            server = init_server(federation, *jax.jit(self.prepared.init)(stream(root, INIT)))
            client_states = simulation.init_client_states(federation, server)
        rate = settings.learning_rate * settings.learning_rate_decay**number
        mask_schedule = schedule(settings, line["anchors"])
        server, outcome = simulation.simulate_round(
            federation, mask_schedule, root, number, server, client_states, dealt.clients, self.data[0], self.data[1], rate,
            participation=settings.participation, faults=build_faults(settings), group=self.group, proxy=self.prepared.proxy,
        )  # fmt: skip
        test_metrics, clients = self.evaluate(server, client_states)
        values = {
            "accuracy": float(test_metrics.accuracy) if federation.objective.classes else float("nan"),
            "loss": float(test_metrics.loss),
            **{name: float(test_metrics.value(name)) for name in columns(federation) if name not in HISTORY},
            "train_loss": float(outcome.metrics.loss_sum / outcome.metrics.count) if outcome.accepted else float("nan"),
            "live": outcome.live,
            "taken": outcome.accepted,
            **dict(zip(BY_CLIENT, clients[1:], strict=True)),
        }
        for name, value in values.items():
            if name in progress.history:
                progress.history[name][run, number] = value
        if "scores" in progress.finals:
            progress.finals["scores"]["accuracy"][run] = clients.accuracy
        progress.history["clients"][run, number] = marks(outcome, settings.clients)
        # under `local` one state for all: the mean of the clients'
        state = (
            jax.tree.map(lambda x: x.mean(0, dtype=x.dtype), client_states.state)
            if federation.norm == "local"
            else server.state
        )
        models = {name: progress.finals[name] for name in ("params", "state")}
        jax.tree.map(lambda all_, new: all_.__setitem__(run, new), models,
                     placement_lib.to_host({"params": server.params, "state": state}))  # fmt: skip
        self.folder.log(step=step, **line, round=number, learning_rate=rate, **values,
                        sampled=len(outcome.turnout.sampled), dropped=outcome.turnout.dropped,
                        stragglers=outcome.turnout.stragglers, refused=outcome.refused,
                        seconds=time.perf_counter() - began)  # fmt: skip
        self._print_refusals(line, number, outcome)
        return progress._replace(server=server, client_states=client_states)

    def evaluate(self, server: Server, client_states: ClientState) -> tuple[AnyMetrics, ByClient]:
        """Returns the metrics on the test set, and the clients' accuracies on their own held-out examples."""
        assert self.dealt is not None
        federation, owners = self.prepared.federation, self.dealt.owners
        on_test = None if self.held else owners
        test_metrics, hits = evaluate_examples(federation, server, client_states, self.test, on_test)
        if self.held is not None:
            hits = evaluate_examples(federation, server, client_states, self.held, owners)[1]
        if not federation.objective.classes:
            owners = np.full_like(owners, -1)
        return test_metrics, by_client(hits, owners, federation.clients)

    def score_clients(self, progress: Progress, run: int, line: Line, number: int) -> None:
        """Scores, if it is asked for, the models that the clients make of the server's, each on its own held-out examples."""
        if self.settings.personalize == "none" or not self.prepared.federation.objective.classes:
            return
        prepared, settings, dealt = self.prepared, self.settings, self.of_seed(line["seed"])
        live = None if settings.personalize == "model" else prepared.head
        split = prepared.data.test
        images, labels = split.images, split.labels
        if settings.held_out:
            images, labels = prepared.train.images[dealt.held], prepared.train.labels[dealt.held]
        rows = [np.flatnonzero(dealt.owners == client) for client in range(settings.clients)]
        size = 1 << max(max(map(len, rows)) - 1, 0).bit_length()
        rate = settings.learning_rate * settings.learning_rate_decay**number
        inputs, targets = self.data
        tuned = fine_tune(
            prepared.federation, progress.server, progress.client_states, dealt.clients, inputs, targets,
            jax.random.key(line["seed"]), number + 1, rate, live=live, group=self.group,
        )  # fmt: skip
        scores = progress.finals["scores"]["personalized"][run]
        for clients, params, state in tuned:
            for i, client in enumerate(clients):
                model, its_state = jax.tree.map(lambda x, i=i: x[i], (params, state))
                own = rows[client]
                scores[client] = accuracy_of(prepared.federation, model, its_state, images[own], labels[own], size)

    def stay(self, progress: Progress, run: int, number: int) -> Progress:
        """Returns the state after a round that does not take place: the model, its accuracy and its loss are those of the last one."""
        for name, values in progress.history.items():
            if name != "clients":
                values[run, number] = 0 if name in ("live", "taken") else values[run, number - 1]
        return progress

    def _print_refusals(self, line: Line, number: int, outcome: Round) -> None:
        """Says once on the screen what is wrong with a client's replies; every round's are in metrics.jsonl."""
        for client, wrong in outcome.refused.items():
            if (client, wrong[0]) not in self.named:
                self.named.add((client, wrong[0]))
                where = f"{named(line)}, round {number + 1}"
                console.print(
                    f"{where}: the reply of client {client} is refused: {'; '.join(wrong)}; the round goes on"
                )
        if not outcome.accepted:
            why = "no reply could be accepted" if outcome.turnout.sampled else "no client was drawn"
            then = "the server's step is noise alone" if outcome.stepped else "the server's model stays as it is"
            console.print(f"round {number + 1}: {why}; {then}")
        elif not outcome.stepped:
            console.print(
                f"round {number + 1}: the average of the replies is not finite; the server's model stays as it is"
            )


def marks(outcome: Round, clients: int) -> np.ndarray:
    """Returns what befell each client, (N,) uint8."""
    bits = np.zeros(clients, np.uint8)
    bits[outcome.turnout.sampled] |= ASKED
    bits[outcome.turnout.dropped] |= DROPPED
    bits[outcome.turnout.stragglers] |= LATE
    bits[list(outcome.refused)] |= REFUSED
    return bits if outcome.turnout.sampled else bits | np.uint8(NOBODY)


def group_size(prepared: Prepared, settings: FederateOptions) -> int:
    """Returns how many clients at once, over all devices, fit the memory; predicted from shapes, see `tna_jax.programs.system.memory`.

    Between rounds the CPU's memory holds every client's state and a few copies of the server's model.
    """
    federation = prepared.federation
    params, state = jax.eval_shape(prepared.init, jax.random.key(0))
    data = (prepared.train.images, prepared.train.labels)
    placement = simulation.resolve(federation, params, state, data[0])
    client_memory = jax.eval_shape(
        lambda: federation.algorithm.init_client(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params))
    )
    working = memory.working(federation.network, params, state, federation.batch_size, data[0])
    copies = 3 + (federation.momentum > 0)  # parameters, gradient's move, update, momentum
    largest = len(data[1]) if settings.partition == "dirichlet" else -(-len(data[1]) // settings.clients)
    kept = (
        copies * memory.size(params)
        + 3 * memory.size(client_memory)
        + 2 * memory.size(state)
        + 4 * largest * (federation.epochs + 1)
    )
    estimate = memory.Estimate(kept, working, memory.size(data))
    sampled = min(asked(settings.clients, settings.participation), simulation.GROUP)
    host = settings.clients * (memory.size(client_memory) + memory.size(state)) + 4 * memory.size(params)
    return memory.at_once(sampled, estimate, placement, memory.available(settings.memory_limit), host)
