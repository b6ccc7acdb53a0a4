"""Weight matching against the plain published algorithm, on an MLP 784-512x3-10. Goal: 10 times faster. About a minute.

On a machine that is busy with other things set OPENBLAS_NUM_THREADS=1: NumPy's threads wait for each other there.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import git_rebasin
from benchmarks.timing import paired, ratio, report
from tna_jax import backend, models, networks, trees
from tna_jax.matching.permutations import apply_permutation, permutation_spec, random_permutation
from tna_jax.matching.weights import weight_matching

DEPTH, WIDTH = 3, 512


def case(second) -> dict:
    """Both on one pair of networks: seconds, objectives, linear assignments."""
    net, init = networks.linen(models.create("mlp", num_classes=10, depth=DEPTH, width=WIDTH), (28, 28, 1))
    a = jax.device_get(init(jax.random.key(0))[0])
    spec = permutation_spec(net, a, jax.ShapeDtypeStruct((4, 28, 28, 1), jnp.float32))
    b = second(spec, a, init)
    table = git_rebasin.mlp(DEPTH)
    flat = [{trees.name(path): jnp.asarray(leaf) for path, leaf in trees.named_leaves(tree)} for tree in (a, b)]
    host = [{path: np.asarray(leaf) for path, leaf in tree.items()} for tree in flat]
    found, keys = {}, {"ours": 0, "published": 0, "published_numpy": 0}

    def ours():
        keys["ours"] += 1
        found["ours"] = weight_matching(spec, a, b, key=jax.random.key(keys["ours"]), check=False)

    def published():
        keys["published"] += 1
        found["published"] = git_rebasin.weight_matching(table, *flat, jax.random.key(keys["published"]))

    def published_numpy():
        keys["published_numpy"] += 1
        git_rebasin.weight_matching(table, *host, jax.random.key(keys["published_numpy"]), np)

    seconds = paired({"ours": ours, "published": published, "published_numpy": published_numpy}, rounds=9)
    return {
        "times_published": ratio(seconds, "published", "ours"),
        "times_published_with_numpy": ratio(seconds, "published_numpy", "ours"),
        "median_seconds": {name: float(np.median(values)) for name, values in seconds.items()},
        "objective": found["ours"].objective,
        "objective_published": git_rebasin.objective(table, *flat, found["published"]),
        "assignments": found["ours"].assignments,
        "seconds": seconds,
    }


def untrained(spec, a, init):
    """Another initial value: nothing to find, the longest way."""
    return jax.device_get(init(jax.random.key(1))[0])


def noisy(spec, a, init):
    """The first network, permuted, with noise as large as its weights: something to find."""
    other = apply_permutation(spec, random_permutation(spec, jax.random.key(2)), a)
    draws = np.random.default_rng(0)
    return jax.tree.map(lambda w: (w + draws.normal(0, w.std() + 1e-3, w.shape)).astype(np.float32), other)


if __name__ == "__main__":
    backend.configure(members=1)
    cases = {made.__name__: case(made) for made in (untrained, noisy)}
    report(
        "matching",
        {
            "network": f"mlp {DEPTH}x{WIDTH}",
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
            "cases": cases,
        },
    )
