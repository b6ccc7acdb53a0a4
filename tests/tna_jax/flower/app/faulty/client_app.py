"""The client's half: a node does what `fault` in its configuration says, in every round."""

import os

import numpy as np
from flwr.app import Array, ArrayRecord

from tna_jax.flower import client_app
from tna_jax.programs.federate.flower_settings import build


def spoil(message, context, call_next):
    fault = context.node_config.get("fault", "")
    if message.metadata.message_type == "train" and fault == "die":
        os._exit(3)
    reply = call_next(message, context)
    if message.metadata.message_type == "train" and fault in ("nan", "shape"):
        (name, array), *_ = reply.content["arrays"].items()
        vector = array.numpy().copy()
        vector[0] = np.nan
        reply.content["arrays"] = ArrayRecord({name: Array(vector if fault == "nan" else vector[:-1] * 0)})
    return reply


app = client_app(build, [spoil])
