"""FedPFN, FedPNU and all algorithms of `tna_jax.federated` as a Flower strategy (Message API).

    strategy = AnchoredStrategy(task)
    result = strategy.run(grid)

Flower's own strategies send the whole model to whoever is there. This one knows which client is which, sends each what it lacks
and takes what fits; `tna_jax.flower.server` decides, this file fits it into Flower's messages.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from logging import INFO
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from flwr.supercore import log

from tna_jax.federated import packing
from tna_jax.federated.faults import NO_FAULTS, sample_clients
from tna_jax.flower import wire
from tna_jax.flower.client import score
from tna_jax.flower.messages import answer_from, record, request_message
from tna_jax.flower.nodes import Nodes, by_sender
from tna_jax.flower.protocol import Answer
from tna_jax.flower.server import Coordinator, Outcome
from tna_jax.flower.task import Task
from tna_jax.io.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Patience:
    """How long the server waits, and for how many.

    Attributes:
      min_nodes: the first round begins when so many clients are there; `None` for all.
      min_replies: a round with fewer good updates leaves the model as it is, but for a server with privacy, which adds noise in every round.
      start: seconds to wait for `min_nodes`, and before each round for `min_replies` of its clients.
      greeting: seconds to wait for new nodes to say who they are.
      round: seconds to wait for the replies of a round; who is later is named and left out.
      fruitless: after so many rounds in a row that left the model as it was the run ends with an error.
    """

    min_nodes: int | None = None
    min_replies: int = 1
    start: float = 600.0
    greeting: float = 120.0
    round: float = 3600.0
    fruitless: int = 5

    def check(self, task: Task) -> None:
        """Raises UsageError, which lists all that cannot be, before anybody waits for it."""
        clients = task.federation.clients
        asked = len(sample_clients(task.root, 0, clients, task.participation, NO_FAULTS).sampled)
        wrong = []
        if self.min_nodes is not None and not 1 <= self.min_nodes <= clients:
            wrong.append(f"min-nodes is {self.min_nodes}, expected 1 to {clients}, the number of clients, or 0 for all")
        if not 1 <= self.min_replies <= asked:
            wrong.append(f"min-replies is {self.min_replies}, expected 1 to {asked}, the number of clients in a round")
        if not self.start >= 0:
            wrong.append(f"start-timeout is {self.start:g} s")
        wrong += [f"{name} is {value:g} s" for name, value in (("round-timeout", self.round), ("greeting", self.greeting))
                  if not value > 0]  # fmt: skip
        if wrong:
            raise UsageError("; ".join(wrong))


class AnchoredStrategy(Strategy):
    """See the module. One strategy is one federation: it keeps the model, and what every client holds."""

    def __init__(
        self,
        task: Task,
        patience: Patience = Patience(),  # noqa: B008
        *,
        evaluate_every: int = 0,
        on_round: Callable[[dict[str, Any]], None] = lambda report: None,
        coordinator: Coordinator | None = None,
    ):
        """Nothing is sent yet.

        Args:
          evaluate_every: the model is evaluated on the clients' own training data after every so many rounds; 0: never.
          on_round: called after each round with a report in JSON's types.
          coordinator: a federation to resume.

        Raises:
          UsageError: a patience that does not go with the task.
        """
        patience.check(task)
        self.task, self.patience, self.evaluate_every, self.on_round = task, patience, evaluate_every, on_round
        self.coordinator = coordinator or Coordinator(task, patience.min_replies)
        self.nodes = Nodes(self.coordinator, lambda text: log(INFO, "%s", text), patience.greeting)
        self.asked: list[Message] = []
        self.absent: dict[int, str] = {}
        self.report: dict[str, Any] = {}
        self.fruitless = 0
        """Rounds in a row, up to now, that left the model as it was."""

    def run(self, grid: Grid) -> Result:
        """Runs all rounds that are left.

        Raises:
          RuntimeError: too few clients came, or the model has not moved for many rounds.
        """
        self.wait_for_clients(grid)
        left = self.task.rounds - self.coordinator.number
        return self.start(grid, self.arrays(), left, self.patience.round, evaluate_fn=self._scored)

    def wait_for_clients(self, grid: Grid) -> None:
        """Waits until enough clients are there; raises RuntimeError if they do not come."""
        clients = self.task.federation.clients
        wanted = clients if self.patience.min_nodes is None else self.patience.min_nodes
        deadline = time.monotonic() + self.patience.start
        while len(here := self.nodes.update(grid)) < wanted:
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"after {self.patience.start:g} s {len(here)} of the {wanted} clients that must be there have come: "
                    f"{sorted(here)}; start the others, or ask for fewer"
                )
            time.sleep(1)

    def arrays(self) -> ArrayRecord:
        """Returns the whole model."""
        return record(wire.to_wire({"model": packing.pack(self.coordinator.model)}))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Returns a message for each client of the round that is connected; the others are named in the report."""
        if self.fruitless >= self.patience.fruitless:
            raise RuntimeError(
                f"the last {self.fruitless} rounds left the model as it was, the reasons are above: when clients answer again, "
                "set resume"
            )
        sampled = self.coordinator.sampled()
        here, began = self._present(grid, sampled), time.time()
        self.absent = {client: "it is not connected" for client in sampled if client not in here}
        requests = {client: self.coordinator.request(client) for client in sampled if client in here}
        self.report = {
            "round": self.coordinator.number, "sampled": sampled, "began": began,
            "sent": {client: request.config["model"] for client, request in requests.items()},
            "bytes_down": {client: wire.total_bytes(request.arrays) for client, request in requests.items()},
        }  # fmt: skip
        return self._messages({here[client]: request for client, request in requests.items()}, MessageType.TRAIN)

    def _present(self, grid: Grid, sampled: list[int]) -> dict[int, int]:
        """Client to node of those that are connected, once they are enough for the round or have been waited for."""
        deadline, logged = time.monotonic() + self.patience.start, False
        wanted = min(self.patience.min_replies, len(sampled))  # with privacy fewer may be drawn
        while len((here := self.nodes.update(grid)).keys() & set(sampled)) < wanted:
            if time.monotonic() > deadline:
                break
            if not logged:
                log(INFO, "waiting for clients: %d of those in this round must be there", wanted)
                logged = True
            time.sleep(1)
        return here

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Accepts what fits, names what does not, makes the server's step."""
        answers, extra = self._answers(replies)
        outcome = self.coordinator.finish_round(answers)
        if self.report["sampled"]:  # with privacy nobody may be drawn, which is no fault
            self.fruitless = 0 if outcome.stepped and outcome.accepted else self.fruitless + 1
        up = {client: wire.total_bytes(a.arrays) for client, a in answers.items() if isinstance(a, Answer)}
        self.report |= _report_of(outcome) | {"bytes_up": up, "also_refused": extra, "ended": time.time()}
        if scores := self._score():
            self.report |= {f"test_{name}": value for name, value in scores.items()}
        for line in report_lines(self.report):
            log(INFO, "%s", line)
        self.on_round(self.report)
        counts = {"taken": len(outcome.accepted), "refused": len(outcome.refused)}
        losses = (
            {}
            if not outcome.accepted
            else {"loss": float(outcome.metrics.loss), "accuracy": float(outcome.metrics.accuracy)}
        )
        return self.arrays(), MetricRecord({**counts, **losses})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Returns a message for each connected client, if the round is one after which clients evaluate."""
        self.absent = {}
        if not self.evaluate_every or self.coordinator.number % self.evaluate_every:
            self.asked = []
            return []
        here = self.nodes.update(grid)
        requests = {node: self.coordinator.request(client, evaluating=True) for client, node in here.items()}
        return self._messages(requests, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The mean over the examples of all clients that answered."""
        if not self.asked:
            return None
        answers, _ = self._answers(replies)
        sums, refused = self.coordinator.finish_evaluation(answers)
        for client, why in refused.items():
            log(INFO, "client %s does not count in the evaluation: %s", client, "; ".join(why))
        if not sums.count:
            return None
        return MetricRecord(
            {"loss": float(sums.loss), "accuracy": float(sums.accuracy), "num-examples": int(sums.count)}
        )

    def summary(self) -> None:
        """Says what is run."""
        federation, schedule = self.task.federation, self.task.schedule
        log(INFO, "%s, server %s, masks %s at ratio %g", federation.algorithm.title, federation.server.title,
            schedule.kind, schedule.ratio)  # fmt: skip
        log(INFO, "%d clients, a share of %g in each round, at least %d replies", federation.clients,
            self.task.participation, self.patience.min_replies)  # fmt: skip

    def _messages(self, requests: dict[int, Any], kind: str) -> list[Message]:
        self.asked = [request_message(request, node, kind, self.patience.round) for node, request in requests.items()]
        return self.asked

    def _answers(self, replies: Iterable[Message]) -> tuple[dict[int, Answer | str], list[str]]:
        """By client, those too that said nothing; and replies that answer nothing, or once too often."""
        clients = {node: client for client, node in self.nodes.of.items()}
        asked = [clients[message.metadata.dst_node_id] for message in self.asked]
        answers: dict[int, Answer | str] = {}
        extra = []
        for client, reply in by_sender(self.asked, replies, clients):
            if client is None:
                extra.append(f"a reply of node {reply.metadata.src_node_id}, which was not asked")
            elif client in answers:
                extra.append(f"a second reply of client {client}")
            else:
                answers[client] = self._answer(client, reply)
        for client in asked:
            answers.setdefault(client, f"it did not reply within {self.patience.round:g} s")
        return {**self.absent, **answers}, extra

    def _answer(self, client: int, reply: Message) -> Answer | str:
        """What is in the reply; a node that says it is another client is asked who it is before the next round."""
        training = self.asked[0].metadata.message_type == MessageType.TRAIN
        answer = answer_from(reply, self.coordinator.names if training else ())
        if isinstance(answer, Answer) and type(other := answer.metrics.get("client")) is int and other != client:
            self.nodes.drop(client)
        return answer

    def _score(self) -> dict[str, float]:
        """The present model on the server's test data, if it has any that suits (running statistics of its own)."""
        if self.task.held_out is None or self.task.federation.norm == "local":
            return {}
        server = self.coordinator.server
        sums = score(self.task, server.params, server.state, self.task.held_out())
        return {"loss": float(sums.loss), "accuracy": float(sums.accuracy)}

    def _scored(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """What `Result` keeps of it; Flower asks before the first round and after each."""
        scores = (
            {name: self.report.get(f"test_{name}") for name in ("loss", "accuracy")} if server_round else self._score()
        )
        return MetricRecord(scores) if scores and None not in scores.values() else None


def report_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of a round in lines."""
    head = f"round {report['round']}: {len(report['taken'])} of {len(report['sampled'])} replies accepted"
    without = "" if report["taken"] else "; a step of noise alone"
    lines = [head + (without if report["stepped"] else "; the model stays as it is")]
    lines += [
        f"round {report['round']}: client {client} is refused: {'; '.join(why)}"
        for client, why in report["refused"].items()
    ]
    lines += [
        f"round {report['round']}: client {client}: {'; '.join(why)}" for client, why in report["remarks"].items()
    ]
    return lines + [f"round {report['round']}: refused {what}" for what in report["also_refused"]]


def _report_of(outcome: Outcome) -> dict[str, Any]:
    """What `federation.json` says of a round; the names are its format."""
    sums = outcome.metrics
    numbers = {"train_loss": float(sums.loss), "train_accuracy": float(sums.accuracy)} if sums.count else {}
    return {
        "taken": outcome.accepted,
        "refused": outcome.refused,
        "remarks": outcome.remarks,
        "stepped": outcome.stepped,
        **numbers,
    }
