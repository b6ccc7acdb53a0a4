"""A client's side of a deployed federation: takes a request, answers it, keeps what it needs for the next one."""

import importlib.metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tna_jax
from tna_jax import federated, metrics
from tna_jax.federated import ORDER, ClientState, Server, evaluation, packing, stream
from tna_jax.federated.schedules import live_in_round
from tna_jax.flower import protocol, wire
from tna_jax.flower.protocol import LIVE, NEVER, PROTOCOL, SAME, WHOLE, Answer, Request
from tna_jax.flower.store import Held, Store
from tna_jax.flower.task import Data, Task


class Lost(Exception):
    """The client does not hold what the server thinks it holds."""


def introduce(task: Task, client: int) -> Answer:
    """Who this is: asked for once, before the first round, so that clients that do not fit are told apart early."""
    _, labels = task.examples(client)
    form = task.form()
    notes = {
        "form": wire.form(form),
        "mask": wire.digest(protocol.may_move(task, form["params"], 0)),
        "versions": f"tna_jax {tna_jax.__version__}, jax {importlib.metadata.version('jax')}",
    }
    return Answer({"protocol": PROTOCOL, "client": client, "num-examples": len(labels)}, {}, notes)


def train(task: Task, client: int, store: Store, request: Request) -> Answer:
    """A round of this client.

    Raises:
      ValueError: the request does not fit this client's task; the message says what differs.
    """
    number, config = int(request.config["round"]), request.config
    start = task.start()
    fresh = federated.init_client_state(task.federation, start)
    held = store.read(task, config["federation"], fresh)
    try:
        model = receive(task, held, request)
    except Lost as lost:
        return _lost(client, number, str(lost))
    taken = int(config["taken"])
    own, forgotten = (fresh, False) if taken == NEVER else _memory(held, taken, fresh)
    sent = _sent(task, model, request)
    inputs, labels = task.examples(client)
    key = stream(task.root, ORDER, number, client)
    data = jnp.asarray(inputs), jnp.asarray(labels)
    reply, kept = federated.train_client(task.federation, sent, own, *data, key)
    store.write(Held(config["federation"], number, model, {taken: own, number: kept}))
    live = live_in_round(sent.mask, reply.steps)
    parts = {
        "delta": packing.pack(reply.delta, live),
        "extra": packing.pack(reply.extra, protocol.mask_for(reply.extra, reply.delta, live)),
        "state": packing.pack(reply.state),
    }
    numbers = {
        "client": client, "round": number, "num-examples": len(labels), "steps": np.asarray(reply.steps).tolist(),
        "loss-sum": float(reply.metrics.loss_sum), "correct": float(reply.metrics.correct),
        "count": float(reply.metrics.count), "model-lost": 0, "memory-lost": int(forgotten),
    }  # fmt: skip
    return Answer(numbers, wire.to_wire(parts))


def receive(task: Task, held: Held | None, request: Request) -> Any:
    """The model of the request's version, from what was sent and what is held.

    Raises:
      Lost: the server relies on a version that is not held, or the result does not have the version's digest.
      ValueError: what was sent does not fit the task.
    """
    config, form = request.config, task.form()
    number, how = int(config["round"]), config["model"]
    if int(config["protocol"]) != PROTOCOL or how not in (WHOLE, LIVE, SAME):
        raise ValueError(
            f"the server speaks protocol {config['protocol']}, this client {PROTOCOL}: install one version"
        )
    base = {WHOLE: None, LIVE: number - 1, SAME: number}[how]
    if base is not None and (held is None or held.version != base):
        has = f"version {held.version}" if held else "no model"
        raise Lost(f"it holds {has}, the server relies on version {base}")
    before, mask = (
        (protocol.zeros(form), None) if held is None or base is None else (held.model, _changed(task, request))
    )
    packed, problems = wire.from_wire(request.arrays, PARTS)
    if problems := problems + packing.misfits(packed["model"], before, mask):
        raise ValueError(f"the server's model does not fit: {'; '.join(problems)}")
    model = packing.unpack(packed["model"], before, mask)
    if wire.digest(model) != config["digest"]:
        raise Lost(f"its model of version {number} is not the server's")
    return model


def evaluate(task: Task, client: int, store: Store, request: Request) -> Answer:
    """The sums of loss and correct answers of the server's model on this client's own training examples."""
    number, config = int(request.config["round"]), request.config
    fresh = federated.init_client_state(task.federation, task.start())
    held = store.read(task, config["federation"], fresh)
    try:
        model = receive(task, held, request)
    except Lost as lost:
        return _lost(client, number, str(lost))
    owns = held.owns if held else {}
    store.write(Held(config["federation"], number, model, owns))
    state = model["state"]
    if task.federation.norm == "local":
        state = owns[max(owns)].state if owns else fresh.state
    examples = task.examples(client)
    found = score(task, model["params"], state, examples)
    numbers = {"client": client, "round": number, "num-examples": len(examples[1]), "model-lost": 0}
    return Answer({**numbers, "loss-sum": float(found.loss_sum), "correct": float(found.correct)}, {})


def _changed(task: Task, request: Request) -> Any:
    """What of the model was sent to a client that holds the version before it, or this one."""
    form, number = task.form(), int(request.config["round"])
    if request.config["model"] == SAME:
        return jax.tree.map(lambda _: np.bool_(False), form)
    live = protocol.round_mask(task, form["params"], number - 1, request.config["phases"])
    return protocol.model_mask(task, form, live)


def _sent(task: Task, model: Any, request: Request) -> federated.Broadcast:
    """What `train_client` takes, as the server has it."""
    number = int(request.config["round"])
    form = protocol.message_form(task, model["params"])
    live = protocol.may_move(task, model["params"], number)
    if wire.digest(live) != request.config["mask"]:
        raise ValueError(
            f"the mask of round {number} is not the server's: install the same versions of tna_jax and jax"
        )
    packed, _ = wire.from_wire(request.arrays, PARTS)
    message = packing.unpack(packed["message"], protocol.zeros(form), protocol.mask_for(form, model["params"], live))
    server = Server(model["params"], model["state"], (), message)
    return federated.broadcast(task.federation, server, task.schedule, task.root, number, task.learning_rate(number))


def _memory(held: Held | None, taken: int, fresh: ClientState) -> tuple[ClientState, bool]:
    """The memory from after the last round whose reply was taken, and whether it is lost, so that it starts anew."""
    if held is not None and taken in held.owns:
        return held.owns[taken], False
    return fresh, bool(jax.tree.leaves(fresh))


def _lost(client: int, number: int, why: str) -> Answer:
    return Answer({"client": client, "round": number, "num-examples": 0, "model-lost": 1}, {}, {"why": why})


PARTS = ("model", "message")
"""Of a request."""


def score(task: Task, params: Any, state: Any, data: Data) -> metrics.Metrics:
    """The model's metrics on all examples of `data`, sums."""
    return evaluation.evaluate(
        task.federation, Server(params, state, (), ()), ClientState((), ()), evaluation.TestSet(*data)
    )
