"""How good models are for each client: the server's on examples of its own, and what the client makes of it."""

from typing import Any

import jax
import numpy as np

from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.evaluation import ByClient, TestSet, accuracy_of, by_client, evaluate_examples
from tna_jax.federated.federation import Federation, Server
from tna_jax.federated.personalization import fine_tune
from tna_jax.metrics import AnyMetrics
from tna_jax.programs.federate.options import FederateOptions
from tna_jax.programs.federate.prepared import Prepared
from tna_jax.programs.federate.setup import Dealt

BY_CLIENT = ("client_mean", "client_worst", "client_std")
"""Columns of federate.json by round: accuracies of the clients on held-out examples of their own; mean, mean of the worst tenth,
standard deviation."""
SCORES = ("accuracy", "personalized")
"""Of each client at the end: of the server's model, and of what the client makes of it."""


def evaluate(
    federation: Federation,
    server: Server,
    client_states: ClientState,
    test: TestSet,
    held: TestSet | None,
    owners: np.ndarray,
) -> tuple[AnyMetrics, ByClient]:
    """Returns the metrics on the test set, and the clients' accuracies on their own held-out examples.

    Args:
      federation: what is simulated.
      server, client_states: after a round.
      test: the test set.
      held: the clients' own held-out examples; None: those of the test set are dealt out.
      owners: (N,) whose each example of `held`, else of `test`, is.
    """
    test_metrics, hits = evaluate_examples(federation, server, client_states, test, None if held else owners)
    if held is not None:
        hits = evaluate_examples(federation, server, client_states, held, owners)[1]
    if not federation.objective.classes:
        owners = np.full_like(owners, -1)
    return test_metrics, by_client(hits, owners, federation.clients)


def score_personalized(
    prepared: Prepared,
    settings: FederateOptions,
    server: Server,
    client_states: ClientState,
    dealt: Dealt,
    data: tuple[Any, Any],
    seed: int,
    number: int,
    group: int,
    scores: np.ndarray,
) -> None:
    """Writes into `scores` the accuracies of the models that the clients make of the server's, each on its own held-out examples.

    Args:
      prepared, settings: of the run; nothing is scored where `--personalize` does not ask for it.
      server, client_states: after the last round.
      dealt: who has which examples.
      data: the clients' inputs and targets.
      seed: of the run.
      number: of the last round.
      group: clients at once.
      scores: (N,), of the run.
    """
    if settings.personalize == "none" or not prepared.federation.objective.classes:
        return
    live = None if settings.personalize == "model" else prepared.head
    split = prepared.data.test
    images, labels = split.images, split.labels
    if settings.held_out:
        images, labels = prepared.train.images[dealt.held], prepared.train.labels[dealt.held]
    rows = [np.flatnonzero(dealt.owners == client) for client in range(settings.clients)]
    size = 1 << max(max(map(len, rows)) - 1, 0).bit_length()
    rate = settings.learning_rate * settings.learning_rate_decay**number
    inputs, targets = data
    tuned = fine_tune(
        prepared.federation, server, client_states, dealt.clients, inputs, targets, jax.random.key(seed), number + 1, rate,
        live=live, group=group,
    )  # fmt: skip
    for clients, params, state in tuned:
        for i, client in enumerate(clients):
            model, its_state = jax.tree.map(lambda x, i=i: x[i], (params, state))
            examples = rows[client]
            scores[client] = accuracy_of(
                prepared.federation, model, its_state, images[examples], labels[examples], size
            )
