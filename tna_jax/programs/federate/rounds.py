"""Runs federations in a run folder, one after the other: a line for each round, checkpoints, safe stops."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import placement as placement_lib
from tna_jax.federated import INIT, client_groups, simulation, stream
from tna_jax.federated.evaluation import TestSet
from tna_jax.federated.faults import asked
from tna_jax.federated.federation import Server, init_server
from tna_jax.federated.simulation import Round
from tna_jax.programs.cli.messages import print_warning
from tna_jax.programs.cli.progress import console, stoppable
from tna_jax.programs.federate import client_scores, health
from tna_jax.programs.federate import stages as stages_lib
from tna_jax.programs.federate.client_marks import ASKED, marks
from tna_jax.programs.federate.client_scores import BY_CLIENT
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.prepared import Prepared, group_size
from tna_jax.programs.federate.progress import HISTORY, Progress, columns, empty, restored
from tna_jax.programs.federate.progress_bar import Bar
from tna_jax.programs.federate.setup import Dealt, build_faults, deal, schedule
from tna_jax.programs.federate.stages import Stages
from tna_jax.programs.reports import measures
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import PLAN, ROUNDS, Run
from tna_jax.programs.system import memory

Line = dict[str, Any]
"""One run of the plan: its `seed` and its mask schedule `anchors`."""


def named(line: Line) -> str:
    """Returns what a run of the plan is called on the screen."""
    return f"{line['anchors']}, seed {line['seed']}"


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
    scored = not resumed or folder.has(ROUNDS)
    stages = stages_lib.read(folder, len(plan), settings.rounds) if resumed else Stages(len(plan), (settings.rounds,))
    group = folder.plan()[1] if resumed else group_size(prepared, settings)
    if not resumed:
        stages_lib.begin(folder, stages)
        folder.write_plan(plan, group)
    if group < min(asked(settings.clients, settings.participation), client_groups.GROUP):
        console.print(f"not all clients of a round fit into the memory at once: groups of {group}")
    progress = empty(prepared.federation, prepared.init, len(plan), settings.rounds, scored)
    begin, progress = restored(folder, progress, stages) if resumed else (0, progress)
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
                machine.score_personalized(progress, run, plan[run], number)
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
        self.placement = client_groups.resolve(prepared.federation, shapes[0], shapes[1], self.data[0])
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
        test_metrics, clients = client_scores.evaluate(
            federation, server, client_states, self.test, self.held, dealt.owners
        )
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

    def score_personalized(self, progress: Progress, run: int, line: Line, number: int) -> None:
        """Scores, if it is asked for, the models that the clients make of the server's."""
        client_scores.score_personalized(
            self.prepared, self.settings, progress.server, progress.client_states, self.of_seed(line["seed"]), self.data, line["seed"],
            number, self.group, progress.finals["scores"]["personalized"][run],
        )  # fmt: skip

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
                print_warning(
                    f"{where}: the reply of client {client} is refused: {'; '.join(wrong)}; the round goes on"
                )
        if not outcome.accepted:
            why = "no reply could be accepted" if outcome.turnout.sampled else "no client was drawn"
            then = "the server's step is noise alone" if outcome.stepped else "the server's model stays as it is"
            print_warning(f"round {number + 1}: {why}; {then}")
        elif not outcome.stepped:
            print_warning(
                f"round {number + 1}: the average of the replies is not finite; the server's model stays as it is"
            )
