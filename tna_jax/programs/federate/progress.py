"""The state of all federations of a run: what a checkpoint holds, empty at first, and restored."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import placement as placement_lib
from tna_jax.federated import simulation
from tna_jax.federated.algorithm import ClientState
from tna_jax.federated.federation import Federation, Server, init_server
from tna_jax.io.errors import UsageError
from tna_jax.io.restore import listed
from tna_jax.programs.federate.client_scores import BY_CLIENT, SCORES
from tna_jax.programs.federate.stages import Stages
from tna_jax.programs.reports import measures
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.runs.restore import restore

HISTORY = ("accuracy", "loss", "train_loss", "live", "taken")
"""Columns of federate.json by round; the names are its format. The server's model on the test set; mean training loss over the
clients' steps; share of entries that were live in the round; number of updates accepted."""


class Progress(NamedTuple):
    """The state of all runs, as a checkpoint holds it: NumPy, but for the server. `finals` are written to in place."""

    server: Server
    """Of the present run."""
    client_states: ClientState
    """(N, ...), likewise."""
    finals: dict[str, Any]
    """`params` and `state` of every run's server (R, ...), as `tna export` reads them; `scores` of its clients, (R, N) each."""
    history: dict[str, np.ndarray]
    """(R, rounds) each, and `clients` (R, rounds, N)."""

    def tree(self, rounds: int | None = None) -> dict[str, Any]:
        """Returns a copy on the host, of the first `rounds` alone; its names, `own` for the clients' states, are the format of checkpoints."""
        server = placement_lib.to_host(self.server)
        history = {name: array[:, :rounds] for name, array in self.history.items()}
        parts = {"server": server, "own": self.client_states, "history": history, **self.finals}
        copied: dict[str, Any] = jax.tree.map(np.array, parts)
        return copied


def columns(federation: Federation) -> tuple[str, ...]:
    """Returns the columns by round: `HISTORY`, and the metrics of another objective than classification."""
    return (
        *HISTORY,
        *(measure.name for measure in measures.of_objective(federation.objective) if measure.name not in HISTORY),
    )


def empty(federation: Federation, init: Any, runs: int, rounds: int, scored: bool = True) -> Progress:
    """Returns the state before the first round; `scored`: with the clients' scores, which runs of before have not."""
    params, state = (
        jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), part) for part in jax.eval_shape(init, jax.random.key(0))
    )
    server = init_server(federation, params, state)
    finals = jax.tree.map(lambda x: np.zeros((runs, *x.shape), x.dtype), {"params": params, "state": state})
    history = {
        name: np.full((runs, rounds), np.nan, np.float32)
        for name in columns(federation) + (BY_CLIENT if scored else ())
    }
    history["clients"] = np.zeros((runs, rounds, federation.clients), np.uint8)
    if scored:
        finals["scores"] = {name: np.full((runs, federation.clients), np.nan, np.float32) for name in SCORES}
    return Progress(server, simulation.init_client_states(federation, server), finals, history)


def restored(folder: Run, progress: Progress, stages: Stages) -> tuple[int, Progress]:
    """Returns the number of steps done and the state of the newest undamaged checkpoint; one of an earlier stage has fewer rounds."""
    saved = listed(folder.checkpoints)
    widths = list(dict.fromkeys(stages.at(step - 1)[3] for step in saved if 0 < step <= stages.steps))
    begin, tree = 0, progress.tree()
    for width in widths:
        try:
            begin, tree = restore(folder.checkpoints, progress.tree(width))
            break
        except UsageError:
            if width == widths[-1]:
                raise
    history = {name: array.copy() for name, array in progress.history.items()}
    for name, array in tree["history"].items():
        history[name][:, : array.shape[1]] = array
    server = Server(*jax.tree.map(jnp.asarray, tuple(tree["server"])))
    finals = {name: tree[name] for name in progress.finals}
    return begin, Progress(server, tree["own"], finals, history)
