"""The two halves of a Flower app, made of a function from the run's settings to a `Task`.

    # client_app.py                                # server_app.py
    from tna_jax.flower import client_app           from tna_jax.flower import server_app
    from my_app.task import build                  from my_app.task import build
    app = client_app(build)                        app = server_app(build)

`build` gets the run configuration (`[tool.flwr.app.config]` and `--run-config`) as a dictionary. Settings of this file, which
an app's configuration may have: `min-nodes` (0: all), `min-replies`, `start-timeout`, `round-timeout` (seconds; see `Patience`),
`evaluate-every`, `out` (a folder of the server for results, "": none), `resume` (the federation in `out`, with other settings
of these if need be). Those of a SuperNode, in its `--node-config`: `partition-id` (which client it is), `state-dir` (where it
keeps its file).
"""

import functools
import logging
import math
from collections.abc import Callable
from logging import INFO
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import log

from tna_jax import backend
from tna_jax.federated import privacy
from tna_jax.flower import client as flower_client
from tna_jax.flower import results
from tna_jax.flower.messages import answer_message, request_from
from tna_jax.flower.protocol import Answer, Request
from tna_jax.flower.store import Store, default_folder
from tna_jax.flower.strategy import AnchoredStrategy, Patience
from tna_jax.flower.task import Task
from tna_jax.io.errors import UsageError

Build = Callable[[dict[str, Any]], Task]
"""The run configuration to the task."""


def client_app(build: Build, mods: list[Any] | None = None) -> ClientApp:
    """Returns a ClientApp that trains, evaluates and says which client it is. `mods`: Flower's own wrappers.

    Flower starts a process for each message, so compiled programs are kept on disk (`$XDG_CACHE_HOME/tna_jax`): the rounds after
    the first compile nothing.
    """
    print_lines_once()
    app = ClientApp(mods=mods)

    def handler(act: Callable[[Task, int, Store, Request], Answer]) -> Callable[[Message, Context], Message]:
        @functools.wraps(act)
        def handle(message: Message, context: Context) -> Message:
            backend.configure()
            client = client_number(context)
            store = Store(Path(str(context.node_config.get("state-dir") or default_folder())), client)
            return answer_message(act(build(dict(context.run_config)), client, store, request_from(message)), message)

        return handle

    app.train()(handler(flower_client.train))
    app.evaluate()(handler(flower_client.evaluate))
    app.query()(handler(lambda task, client, store, request: flower_client.introduce(task, client)))
    return app


def print_lines_once() -> None:
    """Keeps lines of Flower's logger, which prints them, from the root logger: libraries give that a handler of its own when they are
    imported (absl, for Orbax), and each line would be there twice."""
    logger = logging.getLogger("flwr")
    if logger.handlers:
        logger.propagate = False


def client_number(context: Context) -> int:
    """Returns which client this node is. Raises ValueError where its configuration does not say."""
    client = context.node_config.get("partition-id")
    if type(client) is not int:
        raise ValueError(f"partition-id is {client!r}: start the SuperNode with --node-config 'partition-id=0'")
    return client


def privacy_of(task: Task) -> dict[str, Any]:
    """Returns epsilon, delta and rounds of a federation whose server adds noise, of others nothing.

    Raises:
      UsageError: the accountant is not installed.
    """
    rule = task.federation.server.privacy
    if rule is None:
        return {}
    try:
        spent = privacy.epsilon(rule.noise, task.participation, task.rounds, task.delta)
    except ImportError as error:
        raise UsageError(
            f"dp-noise: epsilon is computed by dp-accounting: pip install 'tna-jax[privacy]' ({error})"
        ) from error
    return {"epsilon": spent, "delta": task.delta, "rounds": task.rounds}


def server_app(build: Build) -> ServerApp:
    """Returns a ServerApp that runs all rounds, says what it refuses, and keeps results if `out` is set.

    It fails where nothing was learned: if no reply changed the model, if its test loss ends at ten times that of guessing, if too few
    clients came or none of them has been of use for a while. With `out` set it can be resumed from there (`resume`).
    """
    print_lines_once()
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        backend.configure()
        config = dict(context.run_config)
        task = build(config)
        patience = Patience(
            int(config.get("min-nodes", 0)) or None, int(config.get("min-replies", 1)),
            start=float(config.get("start-timeout", 600)), round=float(config.get("round-timeout", 3600)),
        )  # fmt: skip
        patience.check(task)
        spent = privacy_of(task)  # before anybody waits
        out = Path(str(config["out"])) if config.get("out") else None
        folder = results.Results(out, config, task, patience.min_replies, bool(config.get("resume", False)))
        if spent:
            folder.about["privacy"] = spent
            log(INFO, "privacy of clients: epsilon %.3g at delta %g after %d rounds", *spent.values())
        strategy = AnchoredStrategy(
            task, patience, evaluate_every=int(config.get("evaluate-every", 0)), on_round=folder.add,
            coordinator=folder.coordinator,
        )  # fmt: skip
        strategy.run(grid)
        rounds, stepped = strategy.coordinator.number, sum(report["stepped"] for report in folder.rounds)
        if not any(report["stepped"] and report["taken"] for report in folder.rounds):
            raise RuntimeError(
                f"nothing was learned: none of {rounds} rounds had a reply that changed the model, the reasons are above"
            )
        loss, guessing = strategy.report.get("test_loss", 0.0), math.log(max(task.federation.num_classes, 2))
        if not loss <= 10 * guessing:
            raise RuntimeError(
                f"the model has diverged: its test loss is {loss:.3g}, that of guessing {guessing:.3g}; a smaller learning-rate or momentum, "
                "or fewer epochs may help"
            )
        log(INFO, "federation finished after %d rounds, %d stepped", rounds, stepped)

    return app
