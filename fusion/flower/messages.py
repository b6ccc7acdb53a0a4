"""Requests and answers as Flower's messages, and back. What a message holds is checked here; what it means, elsewhere."""

from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fusion.flower.exchange import Answer, Request
from fusion.flower.wire import Arrays

ARRAYS, CONFIG, METRICS, NOTES = "arrays", "config", "metrics", "notes"
"""Names of the records."""


def request_message(request: Request, node: int, kind: str, ttl: float | None = None) -> Message:
    """The request to a node; `kind` is one of Flower's message types. After `ttl` seconds an answer is of no use."""
    content = RecordDict({ARRAYS: record(request.arrays), CONFIG: ConfigRecord(request.config)})
    return Message(content, node, kind, ttl=ttl, group_id=str(request.config.get("round", "")))


def request_from(message: Message) -> Request:
    """The request in a message. Raises ValueError where it holds none."""
    config, arrays = message.content.get(CONFIG), message.content.get(ARRAYS)
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise ValueError("this message is not from a tna_jax server: it lacks its config or its arrays")
    return Request(dict(config), _arrays(arrays))


def answer_message(answer: Answer, to: Message) -> Message:
    """The answer, as the reply to a request."""
    records = {
        ARRAYS: record(answer.arrays), METRICS: MetricRecord(answer.metrics), NOTES: ConfigRecord(dict(answer.notes)),
    }  # fmt: skip
    return Message(RecordDict(records), reply_to=to)


def answer_from(message: Message) -> Answer | str:
    """The answer in a reply, or in words why there is none."""
    if message.has_error():
        return f"it failed ({message.error.reason or f'error {message.error.code}'})"[:500]
    content = message.content
    metrics, arrays, notes = content.get(METRICS), content.get(ARRAYS), content.get(NOTES, ConfigRecord())
    if not isinstance(metrics, MetricRecord) or not isinstance(arrays, ArrayRecord):
        return "its reply lacks its metrics or its arrays"
    try:
        return Answer(dict(metrics), _arrays(arrays), {name: str(text) for name, text in dict(notes).items()})
    except ValueError as error:
        return str(error)


def record(arrays: Arrays) -> ArrayRecord:
    """Arrays by name, as Flower holds them."""
    return ArrayRecord({name: Array(vector) for name, vector in arrays.items()})


def _arrays(held: ArrayRecord) -> Arrays:
    """NumPy arrays; raises ValueError, which names the array, for bytes that are none."""
    found: dict[str, Any] = {}
    for name, array in held.items():
        try:
            found[name] = array.numpy()
        except Exception as error:  # whatever the bytes make NumPy's reader do
            raise ValueError(f"its array {name[:60]!r} cannot be read ({type(error).__name__})") from error
    return found
