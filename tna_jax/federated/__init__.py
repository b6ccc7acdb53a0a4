"""Federated learning with anchors: algorithms, mask schedules, servers, and a round, simulated or deployed.

server = fl.init_server(federation, params)
broadcast = fl.broadcast(federation, server, fl.Schedule("pfn", ratio=0.4), root, number, learning_rate)
update, client_state = fl.train_client(federation, broadcast, client_state, inputs, labels, client_key)
aggregate = fl.aggregate(federation, broadcast, fl.stack([update, ...]), accepted)
server = fl.server_update(federation, server, broadcast, aggregate, server_key)

with `fl` for `tna_jax.federated`, `client_key = fl.stream(root, fl.ORDER, number, client)` and `server_key = fl.stream(root,
fl.DISTIL, number)`.
"""

import warnings
from typing import Any

from tna_jax.federated.aggregation import aggregate, server_update, stack, validate_update
from tna_jax.federated.algorithm import Algorithm, Broadcast, ClientState, ClientUpdate
from tna_jax.federated.client import train_client, update_shapes
from tna_jax.federated.fedavg import FedAvg
from tna_jax.federated.feddyn import FedDyn
from tna_jax.federated.federation import Federation, Server, broadcast, init_client_state, init_server
from tna_jax.federated.fedlc import FedLC
from tna_jax.federated.fednova import FedNova
from tna_jax.federated.fedprox import FedProx
from tna_jax.federated.fedsam import FedSam
from tna_jax.federated.moon import Moon
from tna_jax.federated.privacy import Privacy
from tna_jax.federated.prng import DISTIL, FAULTS, INIT, MASK, ORDER, PARTITION, PROXY, SAMPLE, stream
from tna_jax.federated.robust import Krum, Median, NormBound, Robust, TrimmedMean
from tna_jax.federated.scaffold import Scaffold
from tna_jax.federated.schedules import Schedule, of_round
from tna_jax.federated.servers import SERVERS, ServerRule

ALGORITHMS: dict[str, type[Algorithm]] = {
    "fedavg": FedAvg, "fedprox": FedProx, "feddyn": FedDyn, "scaffold": Scaffold, "fednova": FedNova, "moon": Moon,
    "fedlc": FedLC, "fedsam": FedSam,
}  # fmt: skip
"""By name; the fields of each are its options."""

__all__ = [
    "ALGORITHMS",
    "DISTIL",
    "FAULTS",
    "INIT",
    "MASK",
    "ORDER",
    "PARTITION",
    "PROXY",
    "SAMPLE",
    "SERVERS",
    "Algorithm",
    "Broadcast",
    "ClientState",
    "ClientUpdate",
    "FedAvg",
    "FedDyn",
    "FedLC",
    "FedNova",
    "FedProx",
    "FedSam",
    "Federation",
    "Krum",
    "Median",
    "Moon",
    "NormBound",
    "Privacy",
    "Robust",
    "Scaffold",
    "Schedule",
    "Server",
    "ServerRule",
    "TrimmedMean",
    "aggregate",
    "broadcast",
    "init_client_state",
    "init_server",
    "of_round",
    "server_update",
    "stack",
    "stream",
    "train_client",
    "update_shapes",
    "validate_update",
]  # fmt: skip

RENAMED = {
    "Own": "ClientState", "Reply": "ClientUpdate", "Sent": "Broadcast", "close": "server_update", "expected": "update_shapes",
    "gather": "aggregate", "init_own": "init_client_state", "problems": "validate_update", "send": "broadcast",
}  # fmt: skip
"""Old names to those of today."""


def __getattr__(name: str) -> Any:
    if name not in RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = RENAMED[name]
    warnings.warn(f"{__name__}.{name} is called {new} now", DeprecationWarning, stacklevel=2)
    return globals()[new]
