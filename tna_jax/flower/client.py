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
from tna_jax.flower.store import ClientRecord, Store
from tna_jax.flower.task import Data, Task


class ModelLost(Exception):
    """The client does not hold what the server thinks it holds."""


def introduce(task: Task, client: int) -> Answer:
    """Says who this is: asked for once, before the first round, so that clients that do not fit are known early."""
    _, labels = task.examples(client)
    shapes = task.model_shapes()
    notes = {
        "form": wire.shape_digest(shapes),
        "mask": wire.digest(protocol.may_move(task, shapes["params"], 0)),
        "versions": f"tna_jax {tna_jax.__version__}, jax {importlib.metadata.version('jax')}",
    }
    return Answer({"protocol": PROTOCOL, "client": client, "num-examples": len(labels)}, {}, notes)


def train(task: Task, client: int, store: Store, request: Request) -> Answer:
    """Runs a round of this client.

    Raises:
      ValueError: the request does not fit this client's task; the message says what differs.
    """
    number, config = int(request.config["round"]), request.config
    start = task.init_server()
    fresh = federated.init_client_state(task.federation, start)
    record = store.read(task, config["federation"], fresh)
    try:
        model = receive(task, record, request)
    except ModelLost as lost:
        return _lost(client, number, str(lost))
    last_accepted = int(config["taken"])
    client_state, memory_lost = (fresh, False) if last_accepted == NEVER else _last_memory(record, last_accepted, fresh)
    broadcast = _broadcast(task, model, request)
    inputs, labels = task.examples(client)
    key = stream(task.root, ORDER, number, client)
    data = jnp.asarray(inputs), jnp.asarray(labels)
    update, new_state = federated.train_client(task.federation, broadcast, client_state, *data, key)
    store.write(ClientRecord(config["federation"], number, model, {last_accepted: client_state, number: new_state}))
    live = live_in_round(broadcast.mask, update.steps)
    parts = {
        "delta": packing.pack(update.delta, live),
        "extra": packing.pack(update.extra, protocol.mask_for(update.extra, update.delta, live)),
        "state": packing.pack(update.state),
    }
    assert isinstance(update.metrics, metrics.Metrics)  # a task is one of classification
    numbers = {
        "client": client, "round": number, "num-examples": len(labels), "steps": np.asarray(update.steps).tolist(),
        "loss-sum": float(update.metrics.loss_sum), "correct": float(update.metrics.correct),
        "count": float(update.metrics.count), "model-lost": 0, "memory-lost": int(memory_lost),
    }  # fmt: skip
    return Answer(numbers, wire.to_wire(parts))


def receive(task: Task, record: ClientRecord | None, request: Request) -> Any:
    """Returns the model of the request's version, from what was sent and what is held.

    Raises:
      ModelLost: the server relies on a version that is not held, or the result does not have the version's digest.
      ValueError: what was sent does not fit the task.
    """
    config, shapes = request.config, task.model_shapes()
    number, delivery = int(config["round"]), config["model"]
    if int(config["protocol"]) != PROTOCOL or delivery not in (WHOLE, LIVE, SAME):
        raise ValueError(
            f"the server speaks protocol {config['protocol']}, this client {PROTOCOL}: install one version"
        )
    base = {WHOLE: None, LIVE: number - 1, SAME: number}[delivery]
    if base is not None and (record is None or record.version != base):
        has = f"version {record.version}" if record else "no model"
        raise ModelLost(f"it holds {has}, the server relies on version {base}")
    before, mask = (
        (protocol.zeros(shapes), None) if record is None or base is None else (record.model, _changed(task, request))
    )
    packed, problems = wire.from_wire(request.arrays, PARTS)
    if problems := problems + packing.misfits(packed["model"], before, mask):
        raise ValueError(f"the server's model does not fit: {'; '.join(problems)}")
    model = packing.unpack(packed["model"], before, mask)
    if wire.digest(model) != config["digest"]:
        raise ModelLost(f"its model of version {number} is not the server's")
    return model


def evaluate(task: Task, client: int, store: Store, request: Request) -> Answer:
    """Computes the sums of loss and correct answers of the server's model on this client's training examples."""
    number, config = int(request.config["round"]), request.config
    fresh = federated.init_client_state(task.federation, task.init_server())
    record = store.read(task, config["federation"], fresh)
    try:
        model = receive(task, record, request)
    except ModelLost as lost:
        return _lost(client, number, str(lost))
    client_states = record.client_states if record else {}
    store.write(ClientRecord(config["federation"], number, model, client_states))
    state = model["state"]
    if task.federation.norm == "local":
        state = client_states[max(client_states)].state if client_states else fresh.state
    examples = task.examples(client)
    sums = score(task, model["params"], state, examples)
    numbers = {"client": client, "round": number, "num-examples": len(examples[1]), "model-lost": 0}
    return Answer({**numbers, "loss-sum": float(sums.loss_sum), "correct": float(sums.correct)}, {})


def _changed(task: Task, request: Request) -> Any:
    """What of the model was sent to a client that holds the version before it, or this one."""
    shapes, number = task.model_shapes(), int(request.config["round"])
    if request.config["model"] == SAME:
        return jax.tree.map(lambda _: np.bool_(False), shapes)
    live = protocol.round_mask(task, shapes["params"], number - 1, request.config["phases"])
    return protocol.model_mask(task, shapes, live)


def _broadcast(task: Task, model: Any, request: Request) -> federated.Broadcast:
    """What `train_client` takes, as the server has it."""
    number = int(request.config["round"])
    shapes = protocol.message_shapes(task, model["params"])
    live = protocol.may_move(task, model["params"], number)
    if wire.digest(live) != request.config["mask"]:
        raise ValueError(
            f"the mask of round {number} is not the server's: install the same versions of tna_jax and jax"
        )
    packed, _ = wire.from_wire(request.arrays, PARTS)
    message = packing.unpack(
        packed["message"], protocol.zeros(shapes), protocol.mask_for(shapes, model["params"], live)
    )
    server = Server(model["params"], model["state"], (), message)
    return federated.broadcast(task.federation, server, task.schedule, task.root, number, task.learning_rate(number))


def _last_memory(record: ClientRecord | None, last_accepted: int, fresh: ClientState) -> tuple[ClientState, bool]:
    """The memory from after the last accepted round, and whether it is lost, so that it starts anew."""
    if record is not None and last_accepted in record.client_states:
        return record.client_states[last_accepted], False
    return fresh, bool(jax.tree.leaves(fresh))


def _lost(client: int, number: int, why: str) -> Answer:
    return Answer({"client": client, "round": number, "num-examples": 0, "model-lost": 1}, {}, {"why": why})


PARTS = ("model", "message")
"""Of a request."""


def score(task: Task, params: Any, state: Any, data: Data) -> metrics.Metrics:
    """Computes the model's metrics on all examples of `data`: sums."""
    sums = evaluation.evaluate(
        task.federation, Server(params, state, (), ()), ClientState((), ()), evaluation.TestSet(*data)
    )
    assert isinstance(sums, metrics.Metrics)  # a task is one of classification
    return sums
