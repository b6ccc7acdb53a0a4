"""The server's side of a deployed federation: what each client is sent, which answers are accepted, the server's step."""

import functools
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import federated
from tna_jax.federated import DISTIL, ClientUpdate, Server, aggregation, packing, stream
from tna_jax.federated.aggregation import Aggregate
from tna_jax.federated.faults import NO_FAULTS, sample_clients
from tna_jax.flower import protocol, validate, wire
from tna_jax.flower.ledger import Ledger
from tna_jax.flower.protocol import PROTOCOL, SAME, WHOLE, Answer, Request
from tna_jax.flower.sanitize import describe_error, sanitize
from tna_jax.flower.task import Task
from tna_jax.metrics import Metrics
from tna_jax.prng import THREEFRY

NOTHING = Metrics(*[np.float64(0)] * 3)
"""The sums over no examples."""


class Outcome(NamedTuple):
    """What became of a round."""

    number: int
    accepted: list[int]
    """Clients whose updates were averaged."""
    refused: dict[int, list[str]]
    """Clients whose updates were not, with what was wrong."""
    remarks: dict[int, list[str]]
    """Clients with something worth knowing whose updates were accepted all the same."""
    stepped: bool
    """Whether the model moved: not with fewer updates than there must be (with privacy by noise alone, too), nor if its numbers would not be finite."""
    metrics: Metrics
    """Training metrics of the accepted ones, summed over their steps."""


class Coordinator:
    """The server's state and its book on clients. One round after the other: `request` for each client, then
    `finish_round`."""

    def __init__(self, task: Task, min_replies: int = 1, name: str | None = None):
        """Starts at round 0.

        Args:
          min_replies: a round with fewer good updates leaves the model as it is.
          name: of this federation, for the clients' files; drawn if it is None.
        """
        self.task, self.min_replies = task, min_replies
        self.name = name or secrets.token_hex(8)
        self.server = task.init_server()
        self.ledger = Ledger()
        self.number = 0
        self.phases = np.zeros(2, bool)
        """The phases in which the round before this one made steps: what was live in it."""
        self.examples: dict[int, int] = {}
        """Of each client that was introduced."""
        self.prepare()

    @property
    def model(self) -> Any:
        """What travels, NumPy: `{"params", "state"}`."""
        return jax.tree.map(np.asarray, {"params": self.server.params, "state": self.server.state})

    def sampled(self) -> list[int]:
        """Returns the clients that are to take part in the present round: those that a simulation draws."""
        task = self.task
        draw = (task.root, self.number, task.federation.clients, task.participation, NO_FAULTS, self.private)
        return sample_clients(*draw).sampled

    def admit(self, answer: Answer | str) -> tuple[int | None, list[str]]:
        """Does what `identify` does; the client's number of examples counts from now on."""
        client, problems = self.identify(answer)
        if client is not None and isinstance(answer, Answer):
            self.examples[client] = answer.metrics["num-examples"]
        return client, problems

    def identify(self, answer: Answer | str) -> tuple[int | None, list[str]]:
        """Returns the client that an introduction is from, or what is wrong with it, in words. Nothing is written down."""
        try:
            return self._identified(answer)
        except Exception as error:  # whatever it holds, it is refused and nobody else is
            return None, [describe_error(error)]

    def _identified(self, answer: Answer | str) -> tuple[int | None, list[str]]:
        if isinstance(answer, str):
            return None, [answer]
        client, notes, federation = answer.metrics.get("client"), answer.notes, self.task.federation
        protocol, examples = answer.metrics.get("protocol"), answer.metrics.get("num-examples")
        shapes, mask = self._expected
        problems = []
        if protocol != PROTOCOL:
            problems.append(f"it speaks protocol {sanitize(protocol)}, this server {PROTOCOL}")
        if type(client) is not int or not 0 <= client < federation.clients:
            problems.append(f"its partition-id is {sanitize(client)}, expected 0 to {federation.clients - 1}")
        if type(examples) is not int or examples < 1:
            problems.append(f"it has {sanitize(examples)} examples")
        elif federation.num_seen(examples) * federation.clients >= 2**31:
            problems.append(f"it has {examples} examples, more steps than int32 can count over all clients")
        if notes.get("form") != shapes:
            problems.append("its network has other parameters")
        elif notes.get("mask") != mask:
            problems.append(f"it draws other masks ({sanitize(notes.get('versions', 'unknown versions'))})")
        return (None, problems) if problems or type(client) is not int else (client, [])

    @functools.cached_property
    def _expected(self) -> tuple[str, str]:
        """Digests of the network's form and of the first mask."""
        shapes = self.task.model_shapes()
        return wire.shape_digest(shapes), wire.digest(protocol.may_move(self.task, shapes["params"], 0))

    def prepare(self) -> None:
        """Prepares the present round: what all of its clients are sent, and the shapes of their updates."""
        task, params = self.task, self.server.params
        rate = task.learning_rate(self.number)
        self.broadcast = federated.broadcast(task.federation, self.server, task.schedule, task.root, self.number, rate)
        self.live = protocol.may_move(task, params, self.number)
        self.common = {
            "protocol": PROTOCOL, "federation": self.name, "round": self.number, "digest": wire.digest(self.model),
            "mask": wire.digest(self.live), "phases": [int(phase) for phase in self.phases],
        }  # fmt: skip
        self.update_shapes = validate.update_shapes(task, self.server, self.broadcast)
        self.names = validate.array_names(self.update_shapes)
        self._models: dict[str, wire.Arrays] = {}

    def request(self, client: int, evaluating: bool = False) -> Request:
        """Returns what a client is sent in the present round: to train, or to evaluate the model before anyone trains from it."""
        delivery = self.ledger.delivery(client, self.number)
        if delivery not in self._models:
            packed = packing.pack(self.model, self._mask(delivery)) if delivery != SAME else {}
            self._models[delivery] = wire.to_wire({"model": packed})
        config = {**self.common, "model": delivery, "taken": self.ledger.last_accepted(client)}
        if evaluating:
            return Request(config, self._models[delivery])
        extra = jax.tree.map(np.asarray, self.broadcast.extra)
        message = packing.pack(extra, protocol.mask_for(extra, self.server.params, self.live))
        return Request(config, {**self._models[delivery], **wire.to_wire({"message": message})})

    def _mask(self, delivery: str) -> Any:
        if delivery == WHOLE:
            return None
        live = protocol.round_mask(self.task, self.server.params, self.number - 1, self.phases)
        return protocol.model_mask(self.task, self.model, live)

    def finish_round(self, answers: Mapping[int, Answer | str]) -> Outcome:
        """Judges the answers and makes the server's step.

        If the step would leave numbers that are not finite, because the sum of finite updates overflows, the update with the
        largest norm is refused and the step made without it; and so on, until the numbers are finite or too few updates are left.

        Args:
          answers: by client; a text says why there is none.

        Returns:
          What became of the round; the next one is the present one from now on.
        """
        task, number = self.task, self.number
        refused: dict[int, list[str]] = {}
        remarks: dict[int, list[str]] = {}
        accepted: list[int] = []
        updates: list[ClientUpdate] = []
        aggregate: Aggregate | None = None
        for client in sorted(answers):
            answer = answers[client]
            update, problems = self._judge(client, answer)
            if update is None or isinstance(answer, str):
                refused[client] = problems
                continue
            if answer.metrics.get("memory-lost"):
                remarks[client] = [f"it had lost its memory ({task.federation.algorithm.title}), which starts anew"]
            if self.combines:
                updates.append(update)
            else:
                aggregate = self._with_update(aggregate, update)
            accepted.append(client)
        aggregate = self._together(updates) if updates else aggregate
        if aggregate is None and self.private:
            aggregate = aggregation.of_nobody(task.federation, self.broadcast)
        server = self._stepped(aggregate, accepted)
        while server is None and accepted and self._enough(accepted):
            aggregate = self._without_largest(answers, accepted, refused)
            server = self._stepped(aggregate, accepted)
        remarks = {client: words for client, words in remarks.items() if client in accepted}
        if server is not None and aggregate is not None:
            self.server = server
            self.phases = np.asarray(aggregate.steps) > 0
            self.ledger.accepted.update(dict.fromkeys(accepted, number))
        else:
            self.phases = np.zeros(2, bool)
        self.number += 1
        self.prepare()
        total = NOTHING
        if aggregate is not None:
            total = Metrics(*(np.float32(x) for x in jax.tree.leaves(aggregate.metrics)))
        return Outcome(number, accepted, refused, remarks, server is not None, total)

    def _enough(self, accepted: list[int]) -> bool:
        return self.private or len(accepted) >= max(1, self.min_replies)

    @property
    def private(self) -> bool:
        """Whether the server adds noise: then each round makes a step, of noise alone if need be, or the model would tell that nobody took part."""
        return self.task.federation.server.privacy is not None

    @property
    def combines(self) -> bool:
        """Whether the server's rule needs all updates of a round at once (median, Krum): then all of them are kept in memory."""
        return aggregation.combines(self.task.federation)

    def _together(self, updates: list[ClientUpdate]) -> Aggregate:
        """What such a rule makes of the updates; padded to all clients, so that one program does for all rounds."""
        more = self.task.federation.clients - len(updates)
        stacked = aggregation.stack([*updates, *[updates[-1]] * more])
        accepted = jnp.arange(len(updates) + more) < len(updates)
        return aggregation.aggregate(self.task.federation, self.broadcast, stacked, accepted, self._proxy)

    def _with_update(self, aggregate: Aggregate | None, update: ClientUpdate) -> Aggregate:
        """Returns the sums with one update more."""
        stacked, federation = aggregation.stack([update]), self.task.federation
        part = aggregation.aggregate(federation, self.broadcast, stacked, jnp.ones(1, bool), self._proxy)
        return part if aggregate is None else aggregation.merge(aggregate, part)

    def _stepped(self, aggregate: Aggregate | None, accepted: list[int]) -> Server | None:
        """The server after its step; `None` if there are too few updates, or its numbers would not be finite."""
        if aggregate is None or not self._enough(accepted):
            return None
        key = stream(self.task.root, DISTIL, self.number)
        if self.private:  # every client knows the root key: the noise must not follow from it
            words = jnp.asarray(np.frombuffer(secrets.token_bytes(8), np.uint32))
            key = jax.random.wrap_key_data(words, impl=THREEFRY)
        server = aggregation.server_update(
            self.task.federation, self.server, self.broadcast, aggregate, key, self._proxy
        )
        return server if aggregation.is_finite(server) else None

    def _without_largest(
        self, answers: Mapping[int, Answer | str], accepted: list[int], refused: dict[int, list[str]]
    ) -> Aggregate | None:
        """Refuses the update of the clients in `accepted` with the largest norm; returns the sums over the others.

        Updates are unpacked again: they are not kept for what hardly ever happens.
        """
        norms: dict[int, float] = {}
        for client in accepted:
            update, _ = self._unpacked(answers[client])
            norms[client] = validate.update_norm(update) if update is not None else np.inf
        largest = max(accepted, key=lambda client: norms[client])
        accepted.remove(largest)
        refused[largest] = [f"with it the model's numbers overflow: its norm, {norms[largest]:.3g}, is the largest"]
        aggregate: Aggregate | None = None
        updates = [update for client in accepted if (update := self._unpacked(answers[client])[0]) is not None]
        if self.combines:
            return self._together(updates) if updates else None
        for update in updates:
            aggregate = self._with_update(aggregate, update)
        return aggregate

    def finish_evaluation(self, answers: Mapping[int, Answer | str]) -> tuple[Metrics, dict[int, list[str]]]:
        """Returns the sums over the clients that evaluated the present model, and the clients whose answers were refused."""
        total, refused = NOTHING, dict[int, list[str]]()
        for client in sorted(answers):
            answer = answers[client]
            problems = self._check_numbers(client, answer)
            if problems or isinstance(answer, str):
                refused[client] = problems
                continue
            examples = answer.metrics["num-examples"]
            numbers = {**answer.metrics, "count": float(examples)}
            if problems := validate.validate_sums(numbers, examples):
                refused[client] = problems
                continue
            total = Metrics(*(a + np.float64(b) for a, b in zip(total, validate.metrics_of(numbers), strict=True)))
        return total, refused

    @functools.cached_property
    def _proxy(self) -> Any:
        """The server's proxy data, if it distils."""
        needed = self.task.federation.server.distillation is not None
        if needed and self.task.proxy is None:
            raise ValueError("FedDF distils on the server: give the task proxy data")
        return jnp.asarray(self.task.proxy()) if needed and self.task.proxy else ()

    def _check_numbers(self, client: int, answer: Answer | str) -> list[str]:
        """What is wrong with an answer before its arrays are looked at; and the book is brought up to date."""
        try:
            problems = self._numbers_problems(client, answer)
        except Exception as error:
            problems = [describe_error(error)]
        if problems:
            self.ledger.lost(client)
        else:
            self.ledger.holds(client, self.number)
        return problems

    def _numbers_problems(self, client: int, answer: Answer | str) -> list[str]:
        if isinstance(answer, str):
            return [answer]
        if answer.metrics.get("model-lost"):
            why = sanitize(answer.notes.get("why", "it does not say why"))
            return [f"it has lost its model ({why}); the next one is sent whole"]
        return validate.validate_numbers(answer.metrics, client, self.number, self.examples.get(client))

    def _judge(self, client: int, answer: Answer | str) -> tuple[ClientUpdate | None, list[str]]:
        """Returns the update in an answer, or what is wrong with it."""
        problems = self._check_numbers(client, answer)
        return (None, problems) if problems else self._unpacked(answer)

    def _unpacked(self, answer: Answer | str) -> tuple[ClientUpdate | None, list[str]]:
        """Returns the update in an answer whose numbers are sound. Whatever else it holds, it is refused and nobody else is."""
        if isinstance(answer, str):
            return None, [answer]
        try:
            update, problems = validate.unpack_update(
                self.task, self.update_shapes, self.server.params, self.broadcast, answer
            )
            if update is not None:
                problems = aggregation.validate_update(self.update_shapes, update)
        except Exception as error:
            return None, [describe_error(error)]
        return (None, problems) if problems else (update, [])
