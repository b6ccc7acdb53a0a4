"""A federation by the functions of the library, for experiments that change what `tna federate` has no option for.

Clients, partition, initial values, masks and data orders of a seed are those of `tna federate` with the same options.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tna_jax import federated as fl
from tna_jax import placement
from tna_jax.federated import evaluation, simulation
from tna_jax.federated.federation import Federation
from tna_jax.federated.schedules import Schedule
from tna_jax.programs.federate import run as federate
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.prepared import Prepared
from tna_jax.programs.federate.setup import client_examples, resolved

LAST = 5
"""Rounds whose mean accuracy is a score, as of `tna federate`."""


class Setting(NamedTuple):
    """What the options stand for, its data on the device."""

    options: FederateOptions
    prepared: Prepared
    data: Any
    test: evaluation.TestSet


class Curve(NamedTuple):
    """What a federation did."""

    accuracy: list[float | None]
    """Of the server's model on the test set after each round; `None` where it was not asked for."""
    live: list[float]
    """Share of entries that were live in each round: what has to travel."""


def prepare(**options: Any) -> Setting:
    """Returns the setting of these fields of `FederateOptions`."""
    settings = resolved(FederateOptions(**options))
    prepared = federate.prepare(settings)
    data = (jnp.asarray(prepared.train.images), jnp.asarray(prepared.train.labels))
    test = evaluation.TestSet(prepared.data.test.images, prepared.data.test.labels)
    return Setting(settings, prepared, placement.replicate(data, placement.mesh()), test)


def run(
    setting: Setting,
    federation: Federation,
    schedule: Schedule,
    seed: int,
    *,
    begin: Callable[[Any], Any] = lambda params: params,
    scored: Callable[[int], bool] = lambda number: True,
) -> Curve:
    """Runs a federation.

    Args:
      setting: of which data, clients, rounds and step sizes are taken.
      federation: the setting's, changed.
      schedule: which anchors.
      seed: of partition, initial values, masks and data orders.
      begin: what the server's initial parameters become before the first round.
      scored: after which rounds, numbers from 0, the model is scored.
    """
    options, prepared, root = setting.options, setting.prepared, jax.random.key(seed)
    clients = client_examples(options, root, prepared.train.labels)
    params, state = jax.jit(prepared.init)(fl.stream(root, fl.INIT))
    server = fl.init_server(federation, begin(params), state)
    client_states = simulation.init_client_states(federation, server)
    curve = Curve([], [])
    for number in range(options.rounds):
        rate = options.learning_rate * options.learning_rate_decay**number
        server, outcome = simulation.simulate_round(
            federation,
            schedule,
            root,
            number,
            server,
            client_states,
            clients,
            setting.data[0],
            setting.data[1],
            rate,
            participation=options.participation,
        )
        curve.live.append(outcome.live)
        metrics = evaluation.evaluate(federation, server, client_states, setting.test) if scored(number) else None
        curve.accuracy.append(None if metrics is None else round(float(metrics.accuracy), 5))
    return curve


def score(accuracy: list[float | None], rounds: int | None = None) -> float:
    """Returns the mean accuracy of the last rounds up to `rounds`, by default all; those that were scored."""
    values = [value for value in accuracy[:rounds][-LAST:] if value is not None]
    return sum(values) / len(values)
