"""Examples in ArrayRecord files, for data larger than memory: written one by one, read by number, streamed through Grain.

A folder holds `*.array_record` files, in the order of their names. A record is one example, `{"x": array, "y": array}` in MessagePack as
`flax.serialization.msgpack_serialize` writes it: arrays with their type and shape, never Python objects. All examples of a folder
have one type and shape.

    write_records("mine/train", ((x, y) for x, y in examples))
    records = Records("mine/train")
    records[7]                                         # (x, y)
    for x, y in records.batches(rows): ...             # rows (S, B) of numbers: (B, ...) each, read ahead in threads

`Records` is a stream, as `tna_jax.streaming` trains on it and `tna_jax.evaluate_path` measures on it. Needs Grain: `pip install 'tna-jax[stream]'`.
"""

from tna_jax.io.records.encoding import decode
from tna_jax.io.records.files import About, has_records
from tna_jax.io.records.reading import Records
from tna_jax.io.records.writing import write_records

__all__ = ["About", "Records", "decode", "has_records", "write_records"]
