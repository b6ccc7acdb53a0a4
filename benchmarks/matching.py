"""Weight matching against the plain published algorithm, on an MLP 784-512x3-10 and on ResNet20 x4. Goal: 10 times faster.

A few minutes. The alternatives take turns, so that a machine that is busy with other things slows all of them; there set
OPENBLAS_NUM_THREADS=1: NumPy's threads wait for each other. With `lapx` installed it has rows of its own.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import git_rebasin, matching_networks
from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax import backend, trees
from tna_jax.matching import ascent, assignment
from tna_jax.matching.weights import weight_matching


def case(pair, spec, table, rounds: int, busy_before: float) -> dict:
    """All alternatives on one pair of networks: seconds, objectives, linear assignments."""
    a, b = pair
    flat = [{trees.name(path): jnp.asarray(leaf) for path, leaf in trees.named_leaves(tree)} for tree in (a, b)]
    host = [{path: np.asarray(leaf) for path, leaf in tree.items()} for tree in flat]
    compiled = assignment.lap
    found, key = {}, jax.random.key(1)

    def ours(library=None):
        assignment.lap = library
        found["ours"] = weight_matching(spec, a, b, key=key, check=False)
        assignment.lap = compiled

    def published():
        found["published"] = git_rebasin.weight_matching(table, *flat, key)

    alternatives = {
        "ours": ours,
        "published": published,
        "published_numpy": lambda: git_rebasin.weight_matching(table, *host, key, np),
        "our_assignments_alone": assignments_alone(spec, a, b),
    }
    if compiled is not None:
        alternatives["ours_lapx"] = lambda: ours(compiled)
    seconds = paired(alternatives, rounds=rounds)
    fast = [name for name in ("ours", "ours_lapx") if name in seconds]
    return {
        "times_published": {name: ratio(seconds, "published", name) for name in fast},
        "times_published_quartiles": {name: quartiles(seconds, "published", name) for name in fast},
        "times_published_with_numpy": {name: ratio(seconds, "published_numpy", name) for name in fast},
        "times_published_if_nothing_but_our_assignments": ratio(seconds, "published", "our_assignments_alone"),
        "median_seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "objective": found["ours"].objective,
        "objective_published": git_rebasin.objective(table, *flat, found["published"]),
        "assignments": found["ours"].assignments,
        "processes_waiting": [busy_before, os.getloadavg()[0]],
        "seconds": seconds,
    }


def assignments_alone(spec, a, b):
    """Runs SciPy on the gains of every assignment of a matching, and nothing else: the bound for any other saving."""
    gains, solve = [], ascent.assign

    def noted(gain):
        gains.append(gain.copy())
        return solve(gain)

    ascent.assign = noted
    weight_matching(spec, a, b, check=False)
    ascent.assign = solve

    def run():
        compiled, assignment.lap = assignment.lap, None
        for gain in gains:
            solve(gain)
        assignment.lap = compiled

    return run


if __name__ == "__main__":
    backend.configure(members=1)
    load = os.getloadavg()[0]
    net, init, spec, table = matching_networks.mlp()
    pairs = {
        "mlp, initial values": (matching_networks.untrained(init, spec), spec, table, 9),
        "mlp, a noisy copy": (matching_networks.noisy(init, spec), spec, table, 9),
        "mlp, trained": (matching_networks.trained(net, init), spec, table, 9),
    }
    _, init, spec, table = matching_networks.resnet()
    pairs |= {
        "resnet20 x4, initial values": (matching_networks.untrained(init, spec), spec, table, 5),
        "resnet20 x4, a noisy copy": (matching_networks.noisy(init, spec), spec, table, 5),
    }
    report(
        "matching",
        {
            "networks": "mlp 784-512x3-10; resnet20, four times as wide, layer norm",
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
            "cases": {name: case(*pair, load) for name, pair in pairs.items()},
        },
    )
