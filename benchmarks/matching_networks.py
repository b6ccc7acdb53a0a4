"""Pairs of networks for the benchmark of matching, and Git Re-Basin's tables of their groups."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import git_rebasin
from tna_jax import models, networks
from tna_jax.matching.permutations import PermutationSpec, apply_permutation, permutation_spec, random_permutation

DEPTH, WIDTH, SHAPE = 3, 512, (28, 28, 1)


def mlp() -> tuple[Any, Callable, PermutationSpec, git_rebasin.Table]:
    """Returns the MLP 784-512x3-10: network, initial values, groups, and the published table."""
    net, init = networks.linen(models.create("mlp", num_classes=10, depth=DEPTH, width=WIDTH), SHAPE)
    return net, init, _spec(net, init, SHAPE), git_rebasin.mlp(DEPTH)


def resnet() -> tuple[Any, Callable, PermutationSpec, git_rebasin.Table]:
    """Returns ResNet20 four times as wide, layer norm, as Git Re-Basin has it."""
    shape = (32, 32, 3)
    net, init = networks.linen(models.create("resnet20", num_classes=10, norm="layer", widen=4), shape)
    return net, init, _spec(net, init, shape), git_rebasin.resnet20()


def _spec(net: Any, init: Callable, shape: tuple[int, ...]) -> PermutationSpec:
    params, state = jax.eval_shape(init, jax.random.key(0))
    return permutation_spec(net, params, jax.ShapeDtypeStruct((4, *shape), jnp.float32), state)


def initial(init: Callable, seed: int) -> Any:
    """Returns initial values on the host."""
    return jax.device_get(init(jax.random.key(seed))[0])


def untrained(init: Callable, spec: PermutationSpec) -> tuple[Any, Any]:
    """Two initial values: nothing to find, the longest way."""
    return initial(init, 0), initial(init, 1)


def noisy(init: Callable, spec: PermutationSpec) -> tuple[Any, Any]:
    """One network, and a permuted copy with noise as large as its weights: something to find."""
    a = initial(init, 0)
    other = apply_permutation(spec, random_permutation(spec, jax.random.key(2)), a)
    draws = np.random.default_rng(0)
    return a, jax.tree.map(lambda w: (w + draws.normal(0, w.std() + 1e-3, w.shape)).astype(np.float32), other)


def trained(net: Any, init: Callable, steps: int = 300) -> tuple[Any, Any]:
    """Two MLPs trained apart on scikit-learn's digits, enlarged to 28x28, by Adam."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.pad(np.kron(digits.images / 16, np.ones((3, 3))), ((0, 0), (2, 2), (2, 2)))[..., None].astype(
        np.float32
    )
    optimizer = optax.adam(1e-3)

    @jax.jit
    def step(params, state, x, y):
        def loss(p):
            return optax.softmax_cross_entropy_with_integer_labels(net(p, x), y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    ends = []
    for seed in (0, 1):
        params, draws = initial(init, seed), np.random.default_rng(seed)
        state = optimizer.init(params)
        for _ in range(steps):
            rows = draws.choice(len(pixels), 128)
            params, state = step(params, state, pixels[rows], digits.target[rows].astype(np.int32))
        ends.append(jax.device_get(params))
    return ends[0], ends[1]
