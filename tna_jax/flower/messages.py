"""Requests and answers as Flower's messages, and back. What a message holds is checked here; what it means, elsewhere."""

from collections.abc import Collection

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from tna_jax.flower.protocol import Answer, Request
from tna_jax.flower.sanitize import describe_error, sanitize
from tna_jax.flower.wire import Arrays

ARRAYS, CONFIG, METRICS, NOTES = "arrays", "config", "metrics", "notes"
"""Names of the records."""
MAGIC = b"\x93NUMPY"
"""How NumPy's file of one array begins; the archive of several, which NumPy would open too, begins in another way."""


def request_message(request: Request, node: int, kind: str, ttl: float | None = None) -> Message:
    """Returns the request as a message to a node; `kind` is one of Flower's message types. After `ttl` seconds an answer is of no use."""
    content = RecordDict({ARRAYS: record(request.arrays), CONFIG: ConfigRecord(request.config)})
    return Message(content, node, kind, ttl=ttl, group_id=str(request.config.get("round", "")))


def request_from(message: Message) -> Request:
    """Returns the request in a message. Raises ValueError where it holds none."""
    config, arrays = message.content.get(CONFIG), message.content.get(ARRAYS)
    if not isinstance(config, ConfigRecord) or not isinstance(arrays, ArrayRecord):
        raise ValueError("this message is not from a tna_jax server: it lacks its config or its arrays")
    return Request(dict(config), {name: _array(name, array) for name, array in arrays.items()})


def answer_message(answer: Answer, to: Message) -> Message:
    """Returns the answer as the reply to a request."""
    records = {
        ARRAYS: record(answer.arrays), METRICS: MetricRecord(answer.metrics), NOTES: ConfigRecord(dict(answer.notes)),
    }  # fmt: skip
    return Message(RecordDict(records), reply_to=to)


def answer_from(message: Message, names: Collection[str] = ()) -> Answer | str:
    """Returns the answer in a reply, or in words why there is none: whatever came, nothing is raised.

    Args:
      message: of another machine, which may hold anything.
      names: of the arrays that were asked for; a reply with others is none, and they are not looked at.
    """
    try:
        return _answer(message, names)
    except Exception as error:
        return describe_error(error)


def _answer(message: Message, names: Collection[str]) -> Answer | str:
    if message.has_error():
        return f"it failed ({sanitize(message.error.reason or f'error {message.error.code}')})"
    content = message.content
    metrics, arrays, notes = content.get(METRICS), content.get(ARRAYS), content.get(NOTES, ConfigRecord())
    if not isinstance(metrics, MetricRecord) or not isinstance(arrays, ArrayRecord):
        return "its reply lacks its metrics or its arrays"
    if strange := [name for name in arrays if name not in names]:
        return f"an array '{sanitize(strange[0])}' was not asked for" + (
            f", nor {len(strange) - 1} others" if strange[1:] else ""
        )
    texts = dict(notes) if isinstance(notes, ConfigRecord) else {}
    try:
        vectors = {name: _array(name, array) for name, array in arrays.items()}
    except ValueError as error:
        return str(error)
    return Answer(dict(metrics), vectors, {name: sanitize(text) for name, text in texts.items()})


def record(arrays: Arrays) -> ArrayRecord:
    """Returns arrays by name as Flower holds them."""
    return ArrayRecord({name: Array(vector) for name, vector in arrays.items()})


def _array(name: str, array: Array) -> np.ndarray:
    """A plain NumPy array; raises ValueError, which names it, for bytes that are none."""
    problem = "it is no array of NumPy's"
    if array.data.startswith(MAGIC):
        try:
            vector = array.numpy()
        except Exception as error:  # whatever the bytes make NumPy's reader do
            problem = type(error).__name__
        else:
            if type(vector) is np.ndarray:
                return vector
    raise ValueError(f"its array '{sanitize(name)}' cannot be read ({problem})")
