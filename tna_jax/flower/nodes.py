"""Which of Flower's nodes is which client. A node says so when it is asked for the first time."""

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from flwr.app import Message
from flwr.serverapp import Grid

from tna_jax.flower.messages import answer_from, request_message
from tna_jax.flower.protocol import Request
from tna_jax.flower.server import Coordinator

PAUSE, LONGEST = 10.0, 3600.0
"""Seconds until a node that was left out is asked again: at first, and at most. The others wait while a node is asked, so the
pause is also no shorter than that took, and doubles from time to time."""


class Later(NamedTuple):
    """A node that was left out."""

    tries: int
    at: float
    """When it may be asked again, by the clock."""


class Nodes:
    """The nodes that are connected and were admitted. What is known of a node is forgotten when it goes offline."""

    def __init__(
        self,
        coordinator: Coordinator,
        log_line: Callable[[str], None],
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.coordinator, self.log_line, self.timeout, self.clock = coordinator, log_line, timeout, clock
        self.of: dict[int, int] = {}
        """Client to node."""
        self.later: dict[int, Later] = {}
        self.twins: dict[int, int] = {}
        """Nodes that say they are a client that another node is: they may take its place once it is gone."""

    def update(self, grid: Grid) -> dict[int, int]:
        """Asks new nodes who they are; returns client to node of those that are connected now."""
        online, now = set(grid.get_node_ids()), self.clock()
        self.of = {client: node for client, node in self.of.items() if node in online}
        self.twins = {node: client for node, client in self.twins.items() if node in online and client in self.of}
        self.later = {node: later for node, later in self.later.items() if node in online}
        waiting = {*self.twins, *(node for node, later in self.later.items() if now < later.at)}
        new = sorted(online - set(self.of.values()) - waiting)
        if new:
            asked = [request_message(Request({}, {}), node, "query", self.timeout) for node in new]
            replies = list(grid.send_and_receive(asked, timeout=self.timeout))
            answered = dict(by_sender(asked, replies, {node: node for node in new}))
            for node in new:
                self._admit(node, answered.get(node), self.clock() - now)
        return dict(self.of)

    def drop(self, client: int) -> None:
        """Forgets the client's node, which has said that it is another client: it is asked again who it is."""
        self.log_line(f"node {self.of.pop(client)} is no longer client {client}")

    def _admit(self, node: int, message: Message | None, took: float) -> None:
        answer = answer_from(message) if message else f"it did not say who it is within {self.timeout:g} s"
        client, problems = self.coordinator.identify(answer)
        if client is None:
            tries = self.later[node].tries + 1 if node in self.later else 1
            pause = min(max(PAUSE, took) * 2.0 ** min(tries - 1, 20), LONGEST)
            self.later[node] = Later(tries, self.clock() + pause)
            self.log_line(f"node {node} is left out: {'; '.join(problems)}; it is asked again in {pause:.0f} s")
        elif client in self.of:
            self.twins[node] = client
            self.log_line(f"node {node} is left out: client {client} is node {self.of[client]} already")
        else:
            self.coordinator.admit(answer)
            self.of[client] = node
            self.later.pop(node, None)
            self.log_line(f"client {client} is node {node}, {self.coordinator.examples[client]} examples")


def by_sender(
    asked: Iterable[Message], replies: Iterable[Message], clients: dict[int, int]
) -> Iterable[tuple[int | None, Message]]:
    """Yields each reply with the client it is from, `None` if that was not asked.

    A reply belongs to the message that it answers; Flower's own error messages have no other trace of their node.
    """
    questions = {message.metadata.message_id: message.metadata.dst_node_id for message in asked}
    for reply in replies:
        node = questions.get(reply.metadata.reply_to_message_id)
        yield (clients.get(node) if node is not None else None), reply
