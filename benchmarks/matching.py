"""Weight matching against the plain published algorithm, on an MLP 784-512x3-10 and on ResNet20 x4. Goal: 10 times faster.

A few minutes. The alternatives take turns, so that a machine that is busy with other things slows all of them; there set
OPENBLAS_NUM_THREADS=1: NumPy's threads wait for each other. With `lapx` installed it has rows of its own. Processor time is noted
beside seconds. The bound: our matrix products and assignments with arrays that lie ready, and nothing else, which no saving elsewhere can pass.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import git_rebasin, matching_networks
from benchmarks.timing import paired, quartiles, ratio, report
from tna_jax import backend, trees
from tna_jax.matching import ascent, assignment, gains
from tna_jax.matching.weights import weight_matching


def case(pair, spec, table, rounds: int, busy_before: float) -> dict:
    """All alternatives on one pair of networks: seconds, objectives, linear assignments."""
    a, b = pair
    flat = [{trees.name(path): jnp.asarray(leaf) for path, leaf in trees.named_leaves(tree)} for tree in (a, b)]
    host = [{path: np.asarray(leaf) for path, leaf in tree.items()} for tree in flat]
    compiled = assignment.lapjvs
    matchings, key = {}, jax.random.key(1)

    def ours(library=None):
        assignment.lapjvs = library
        matchings["ours"] = weight_matching(spec, a, b, key=key, check=False)
        assignment.lapjvs = compiled

    def published():
        matchings["published"] = git_rebasin.weight_matching(table, *flat, key)

    alternatives = {
        "ours": ours,
        "published": published,
        "published_numpy": lambda: git_rebasin.weight_matching(table, *host, key, np),
        "our_assignments_alone": alone(spec, a, b, products=False),
        "our_products_and_assignments_alone": alone(spec, a, b, products=True),
    }
    if compiled is not None:
        alternatives["ours_lapx"] = lambda: ours(compiled)
    processor: dict[str, list[float]] = {name: [] for name in alternatives}

    def noted(name, run):
        def both():
            start = time.process_time()
            run()
            processor[name].append(time.process_time() - start)

        return both

    seconds = paired({name: noted(name, run) for name, run in alternatives.items()}, rounds=rounds)
    processor = {name: times[-rounds:] for name, times in processor.items()}
    fast = [name for name in ("ours", "ours_lapx") if name in seconds]
    return {
        "times_published": {name: ratio(seconds, "published", name) for name in fast},
        "times_published_quartiles": {name: quartiles(seconds, "published", name) for name in fast},
        "times_published_with_numpy": {name: ratio(seconds, "published_numpy", name) for name in fast},
        "times_published_by_processor_time": {name: ratio(processor, "published", name) for name in fast},
        "times_published_if_nothing_but_our_assignments": ratio(seconds, "published", "our_assignments_alone"),
        "times_published_if_nothing_but_our_products_and_assignments": ratio(
            seconds, "published", "our_products_and_assignments_alone"
        ),
        "the_same_by_processor_time": ratio(processor, "published", "our_products_and_assignments_alone"),
        "median_processor_seconds": {name: float(np.median(values)) for name, values in processor.items()},
        "median_seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "objective": matchings["ours"].objective,
        "objective_published": git_rebasin.objective(table, *flat, matchings["published"]),
        "assignments": matchings["ours"].assignments,
        "processes_waiting": [busy_before, os.getloadavg()[0]],
        "seconds": seconds,
    }


def alone(spec, a, b, products: bool):
    """Runs SciPy on the gains of every assignment of a matching, and its matrix products if asked: the bound for any other saving."""
    solved, multiplied, solve, multiply = [], [], ascent.assign, gains.product

    def noted_assignment(gain):
        solved.append(gain.copy())
        return solve(gain)

    def noted_product(first, second):
        multiplied.append((first, second))
        return multiply(first, second)

    ascent.assign, gains.product = noted_assignment, noted_product
    weight_matching(spec, a, b, check=False)
    ascent.assign, gains.product = solve, multiply

    def run():
        compiled, assignment.lapjvs = assignment.lapjvs, None
        for gain in solved:
            solve(gain)
        for first, second in multiplied if products else ():
            multiply(first, second)
        assignment.lapjvs = compiled

    return run


if __name__ == "__main__":
    backend.configure(members=1)
    load = os.getloadavg()[0]
    net, init, spec, table = matching_networks.mlp()
    pairs = {
        "mlp, initial values": (matching_networks.untrained(init, spec), spec, table, 5),
        "mlp, a noisy copy": (matching_networks.noisy(init, spec), spec, table, 5),
        "mlp, trained": (matching_networks.trained(net, init), spec, table, 5),
    }
    _, init, spec, table = matching_networks.resnet()
    pairs |= {
        "resnet20 x4, initial values": (matching_networks.untrained(init, spec), spec, table, 3),
        "resnet20 x4, a noisy copy": (matching_networks.noisy(init, spec), spec, table, 3),
    }
    report(
        "matching",
        {
            "networks": "mlp 784-512x3-10; resnet20, four times as wide, layer norm",
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
            "cases": {name: case(*pair, load) for name, pair in pairs.items()},
        },
    )
