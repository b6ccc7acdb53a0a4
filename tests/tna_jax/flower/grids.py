"""A Flower grid in this process: the real strategy and the real ClientApp, with messages handed over instead of sent."""

from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Spoil = Callable[[Message], Iterable[Message]]
"""What becomes of a node's reply to a train message: any number of messages."""


class FakeGrid(Grid):
    """Nodes that run a ClientApp when a message comes."""

    def __init__(self, app: ClientApp, configs: dict[int, dict], run_config: dict | None = None):
        """`configs`: the configuration of each node by its number."""
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # else Flower makes no messages
        self.app = app
        self.contexts = {
            node: Context(1, node, config, RecordDict(), run_config or {}) for node, config in configs.items()
        }
        self.offline: set[int] = set()
        self.spoil: dict[int, Spoil] = {}
        self.count = 0

    def set_run(self, run):
        raise NotImplementedError

    @property
    def run(self):
        raise NotImplementedError

    def create_message(self, *args, **kwargs):
        raise NotImplementedError

    push_messages = pull_messages = create_message

    def get_node_ids(self):
        return [node for node in self.contexts if node not in self.offline]

    def send_and_receive(self, messages, *, timeout=None):
        replies = []
        for message in messages:
            self.count += 1
            message.metadata.__dict__["_message_id"] = f"m{self.count}"
            replies.extend(self._answered(message))
        return replies[::-1]  # in another order than they were asked

    def _answered(self, message: Message) -> Iterable[Message]:
        node, kind = message.metadata.dst_node_id, message.metadata.message_type
        if node in self.offline:
            return []
        try:
            reply = self.app(message, self.contexts[node])
        except Exception as error:
            reply = Message(Error(code=2, reason=f"{type(error)}:<'{error}'>"), reply_to=message)
        return self.spoil[node](reply) if kind == "train" and node in self.spoil else [reply]
