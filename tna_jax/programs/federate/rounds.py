"""Runs federations in a run folder, one after the other: a line for each round, checkpoints, safe stops."""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import placement as placement_lib
from tna_jax.federated import INIT, simulation, stream
from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.evaluation import TestSet, evaluate
from tna_jax.federated.faults import asked
from tna_jax.federated.federation import Federation, Server, init_server
from tna_jax.federated.partition import Clients
from tna_jax.federated.simulation import Round
from tna_jax.programs.cli.progress import console, stoppable
from tna_jax.programs.data import Dataset, Split
from tna_jax.programs.federate import health
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.progress_bar import Bar
from tna_jax.programs.federate.setup import build_faults, client_examples, schedule
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


Line = dict[str, Any]
"""One run of the plan: its `seed` and its mask schedule `anchors`."""
HISTORY = ("accuracy", "loss", "train_loss", "live", "taken")
"""Columns of federate.json by round; the names are its format. The server's model on the test set; mean training loss over the
clients' steps; share of entries that were live in the round; number of updates accepted."""
ASKED, DROPPED, LATE, REFUSED = 1, 2, 4, 8
"""Bits of what befell a client in a round."""


class Progress(NamedTuple):
    """The state of all runs, as a checkpoint holds it: NumPy, but for the server. `finals` are written to in place."""

    server: Server
    """Of the present run."""
    client_states: ClientState
    """(N, ...), likewise."""
    finals: dict[str, Any]
    """`params` and `state` of every run's server (R, ...), as `tna export` reads them."""
    history: dict[str, np.ndarray]
    """(R, rounds) each, and `clients` (R, rounds, N)."""

    def tree(self) -> dict[str, Any]:
        """Returns a copy on the host; its names, `own` for the clients' states, are the format of checkpoints."""
        server = placement_lib.to_host(self.server)
        parts = {"server": server, "own": self.client_states, "history": self.history, **self.finals}
        copied: dict[str, Any] = jax.tree.map(np.array, parts)
        return copied


def empty(federation: Federation, init: Any, runs: int, rounds: int) -> Progress:
    """Returns the state before the first round."""
    params, state = (
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), part) for part in jax.eval_shape(init, jax.random.key(0))
    )
    server = init_server(federation, params, state)
    finals = jax.tree.map(lambda x: np.zeros((runs, *x.shape), x.dtype), {"params": params, "state": state})
    history = {name: np.full((runs, rounds), np.nan, np.float32) for name in HISTORY}
    history["clients"] = np.zeros((runs, rounds, federation.clients), np.uint8)
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
    rounds, steps = settings.rounds, len(plan) * settings.rounds
    resumed = settings.resume and folder.has(PLAN)
    group = folder.plan()[1] if resumed else group_size(prepared, settings)
    if not resumed:
        folder.write_plan(plan, group)
    if group < asked(settings.clients, settings.participation):
        console.print(f"not all clients of a round fit into the memory at once: groups of {group}")
    progress = empty(prepared.federation, prepared.init, len(plan), rounds)
    begin, tree = restore(folder.checkpoints, progress.tree()) if resumed else (0, progress.tree())
    server = Server(*jax.tree.map(jnp.asarray, tuple(tree["server"])))
    progress = Progress(server, tree["own"], {"params": tree["params"], "state": tree["state"]}, tree["history"])
    folder.keep_logged(begin)
    machine = _Machine(prepared, settings, folder, group)
    frequency = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with Checkpoints(folder.checkpoints, *frequency) as saved, stoppable("round") as stop, Bar(steps, begin) as bar:
        for step in range(begin, steps):
            run, number = divmod(step, rounds)
            if why := stopped(progress.history, run, number, prepared.data.num_classes):
                progress = machine.stay(progress, run, number)
                if (run, why) not in machine.named:
                    machine.named.add((run, why))
                    console.print(
                        f"{plan[run]}: stopped before round {number + 1} of {rounds}: {why}; its model stays as it is"
                    )
            else:
                progress = machine.round(progress, run, plan[run], number)
            bar.round(plan[run], number, rounds, progress.history["accuracy"][run])
            done = step + 1
            if done == steps or stop.asked or saved.due(done):
                saved.wait()
                saved.save(done, progress.tree())
            if stop.asked and done < steps:
                saved.wait()
                console.print(f"stopped after round {number + 1} of {rounds} of {plan[run]}; saved in {folder.folder}")
                console.print(f"to resume: tna resume {folder.quoted_path}")
                stop.check()
    return progress, {"placement": machine.placement, "group": group, "peak_bytes": memory.peak()}


def stopped(history: dict[str, np.ndarray], run: int, number: int, classes: int) -> str:
    """Says why round `number` of a run does not take place; empty if it does. It depends on the rounds before alone."""
    accuracy, loss, accepted = (history[name][run, :number] for name in ("accuracy", "loss", "taken"))
    asked_any = history["clients"][run, :number].any(axis=1)  # rounds that took place
    return health.hopeless(accuracy[asked_any], loss[asked_any], accepted[asked_any], classes)


class _Machine:
    """What a round needs beside the state: data on the devices, the partition of the present run."""

    def __init__(self, prepared: Prepared, settings: FederateOptions, folder: Run, group: int):
        self.prepared, self.settings, self.folder, self.group = prepared, settings, folder, group
        data = (jnp.asarray(prepared.train.images), jnp.asarray(prepared.train.labels))
        self.data = placement_lib.replicate(data, placement_lib.mesh())
        self.test = TestSet(prepared.data.test.images, prepared.data.test.labels)
        shapes = jax.eval_shape(prepared.init, jax.random.key(0))
        self.placement = simulation.resolve(prepared.federation, shapes[0], shapes[1], self.data[0])
        self.seed: int | None = None
        self.clients: Clients | None = None
        self.named: set[tuple[int, str]] = set()

    def round(self, progress: Progress, run: int, line: Line, number: int) -> Progress:
        """Returns the state after round `number` of run `run`; its first round begins from scratch."""
        federation, settings, began = self.prepared.federation, self.settings, time.perf_counter()
        root = jax.random.key(line["seed"])
        if self.seed != line["seed"]:
            self.seed, self.clients = line["seed"], client_examples(settings, root, self.prepared.train.labels)
        assert self.clients is not None
        server, client_states = progress.server, progress.client_states
        if number == 0:
            server = init_server(federation, *jax.jit(self.prepared.init)(stream(root, INIT)))
            client_states = simulation.init_client_states(federation, server)
        rate = settings.learning_rate * settings.learning_rate_decay**number
        mask_schedule = schedule(settings, line["anchors"])
        server, outcome = simulation.simulate_round(
            federation, mask_schedule, root, number, server, client_states, self.clients, self.data[0], self.data[1], rate,
            participation=settings.participation, faults=build_faults(settings), group=self.group, proxy=self.prepared.proxy,
        )  # fmt: skip
        test_metrics = evaluate(federation, server, client_states, self.test)
        values = {
            "accuracy": float(test_metrics.accuracy),
            "loss": float(test_metrics.loss),
            "train_loss": float(outcome.metrics.loss_sum / outcome.metrics.count) if outcome.accepted else float("nan"),
            "live": outcome.live,
            "taken": outcome.accepted,
        }
        for name, value in values.items():
            progress.history[name][run, number] = value
        progress.history["clients"][run, number] = marks(outcome, settings.clients)
        # under `local` one state for all: the mean of the clients'
        state = (
            jax.tree.map(lambda x: x.mean(0, dtype=x.dtype), client_states.state)
            if federation.norm == "local"
            else server.state
        )
        jax.tree.map(lambda all_, new: all_.__setitem__(run, new), progress.finals,
                     placement_lib.to_host({"params": server.params, "state": state}))  # fmt: skip
        self.folder.log(step=run * settings.rounds + number, **line, round=number, learning_rate=rate, **values,
                        sampled=len(outcome.turnout.sampled), dropped=outcome.turnout.dropped,
                        stragglers=outcome.turnout.stragglers, refused=outcome.refused,
                        seconds=time.perf_counter() - began)  # fmt: skip
        self._print_refusals(line, number, outcome)
        return progress._replace(server=server, client_states=client_states)

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
                where = f"{line['anchors']}, seed {line['seed']}, round {number + 1}"
                console.print(
                    f"{where}: the reply of client {client} is refused: {'; '.join(wrong)}; the round goes on"
                )
        if not outcome.accepted:
            console.print(f"round {number + 1}: no reply could be accepted; the server's model stays as it is")
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
    return bits


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
    sampled = max(1, int(settings.participation * settings.clients + 0.5))
    host = settings.clients * (memory.size(client_memory) + memory.size(state)) + 4 * memory.size(params)
    return memory.at_once(sampled, estimate, placement, memory.available(settings.memory_limit), host)
