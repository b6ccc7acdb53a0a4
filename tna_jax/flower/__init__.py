"""A federation between real machines, on Flower: FedPFN and FedPNU with only the live weights on the wire.

A `Task` says what is learned; `client_app` and `server_app` make the two halves of a Flower app from a function that builds it:

    from tna_jax import flower
    app = flower.client_app(build)      # in client_app.py
    app = flower.server_app(build)      # in server_app.py

The modules below them are plain functions of arrays and do not know Flower, so they serve any other transport as well:

- `server`: a `Coordinator` decides what each client is sent, which answers are accepted, and makes the server's step;
- `client`: introduces a client, trains it for a round, evaluates the server's model;
- `validate`: what is wrong with an answer, in words;
- `wire`: trees of arrays as named vectors, and digests by which two sides know that they agree.

`client_app`, `server_app`, `AnchoredStrategy` and `Patience` need Flower (`pip install 'tna-jax[federated]'`); it is imported when
one of them is used, not before.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tna_jax.flower import client as client
    from tna_jax.flower import server as server
    from tna_jax.flower import validate as validate
    from tna_jax.flower import wire as wire
    from tna_jax.flower.apps import client_app as client_app
    from tna_jax.flower.apps import server_app as server_app
    from tna_jax.flower.strategy import AnchoredStrategy as AnchoredStrategy
    from tna_jax.flower.strategy import Patience as Patience
    from tna_jax.flower.task import Task as Task

MODULES = ("client", "server", "validate", "wire")
WITH_FLOWER = {"AnchoredStrategy": "strategy", "Patience": "strategy", "client_app": "apps", "server_app": "apps"}
"""Names to the modules that import Flower."""

__all__ = [
    "AnchoredStrategy", "Patience", "Task", "client", "client_app", "server", "server_app", "validate", "wire",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    module = {"Task": "task", **WITH_FLOWER}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name != "flwr":
            raise
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs Flower: pip install 'tna-jax[federated]' in an environment of its own",
            name="flwr",
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
