"""Which of Flower's nodes is which client. A node says so when it is asked for the first time."""

from collections import Counter
from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.serverapp import Grid

from fusion.flower.coordinator import Coordinator
from fusion.flower.exchange import Request
from fusion.flower.messages import answer_from, request_message

TRIES = 3
"""How often a node that does not say who it is is asked: each time the others wait."""


class Nodes:
    """The nodes that are connected and were admitted."""

    def __init__(self, coordinator: Coordinator, tell: Callable[[str], None], timeout: float):
        self.coordinator, self.tell, self.timeout = coordinator, tell, timeout
        self.of: dict[int, int] = {}
        """Client to node."""
        self.turned_away: set[int] = set()
        self.unanswered: Counter[int] = Counter()
        self.twins: dict[int, int] = {}
        """Nodes that say they are a client that another node is: they may take its place once it is gone."""

    def update(self, grid: Grid) -> dict[int, int]:
        """Asks nodes that are new who they are; returns client to node of those that are connected now."""
        online = set(grid.get_node_ids())
        self.of = {client: node for client, node in self.of.items() if node in online}
        waiting = {node for node, client in self.twins.items() if client in self.of}
        new = sorted(online - set(self.of.values()) - self.turned_away - waiting)
        if new:
            asked = [request_message(Request({}, {}), node, "query", self.timeout) for node in new]
            replies = list(grid.send_and_receive(asked, timeout=self.timeout))
            answered = dict(by_sender(asked, replies, {node: node for node in new}))
            for node in new:
                self._admit(node, answered.get(node))
        return dict(self.of)

    def _admit(self, node: int, message: Message | None) -> None:
        if message is None or message.has_error():
            why = answer_from(message) if message else f"it did not say who it is within {self.timeout:g} s"
            self.unanswered[node] += 1
            if self.unanswered[node] == TRIES:
                self.turned_away.add(node)
            self.tell(f"node {node} is left out: {why}")
            return
        client, problems = self.coordinator.admit(answer_from(message))
        if client is not None and client in self.of:
            self.twins[node] = client
            self.tell(f"node {node} is left out: client {client} is node {self.of[client]} already")
        elif client is None:
            self.turned_away.add(node)
            self.tell(f"node {node} is left out: {'; '.join(problems)}")
        else:
            self.of[client] = node
            self.tell(f"client {client} is node {node}, {self.coordinator.examples[client]} examples")


def by_sender(
    asked: Iterable[Message], replies: Iterable[Message], clients: dict[int, int]
) -> Iterable[tuple[int | None, Message]]:
    """Each reply with the client it is from, `None` if that was not asked.

    A reply belongs to the message that it answers; Flower's own error messages have no other trace of their node.
    """
    questions = {message.metadata.message_id: message.metadata.dst_node_id for message in asked}
    for reply in replies:
        node = questions.get(reply.metadata.reply_to_message_id)
        yield (clients.get(node) if node is not None else None), reply
