# %% [markdown]
# # Anchors with NNX and with Equinox
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/6_nnx_and_equinox.ipynb)
#
# Masks and optimizers take whatever tree of parameters you have; leaves are matched by their names. One network in Flax NNX, one in Equinox, each trained
# twice with shared anchors, then averaged. Digits come with scikit-learn: nothing is downloaded.

# %%
# In Colab this installs the package and, where there is a GPU, JAX for it; in an environment that has the package it does nothing.
import importlib.util
import shutil
import subprocess
import sys

if importlib.util.find_spec("tna_jax") is None:
    extras = "cli,cuda12" if shutil.which("nvidia-smi") else "cli"
    source = f"tna-jax[{extras}] @ git+https://github.com/OWNER/tna_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source, "equinox"], check=True)

# %%
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from tna_jax import anchored, line, masks

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = jnp.asarray(images[order] / 16, jnp.float32)
labels = jnp.asarray(digits[order], jnp.int32)
train, test = (inputs[:1300], labels[:1300]), (inputs[1300:], labels[1300:])


def batches(seed, epochs=10, size=32):
    shuffle = np.random.default_rng(seed)
    for _ in range(epochs):
        yield from np.array_split(shuffle.permutation(1300)[:1280], 1280 // size)


def share_correct(logits):
    return float((logits.argmax(-1) == test[1]).mean())


# %% [markdown]
# ## NNX
#
# `nnx.Optimizer` takes the anchored optimizer as it takes any other. AdamW decays weights, so it is `anchored(...)`, not `tna_mask` in a chain.


# %%
class Network(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(64, 64, rngs=rngs)
        self.second = nnx.Linear(64, 64, rngs=rngs)
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.relu(self.second(nnx.relu(self.first(x)))))


model = Network(nnx.Rngs(0))
mask = masks.bernoulli(jax.random.key(1), nnx.state(model, nnx.Param), ratio=0.4)


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


trained = []
for seed in (1, 2):
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, anchored(optax.adamw(3e-3, weight_decay=0.01), mask), wrt=nnx.Param)
    for rows in batches(seed):
        step(model, optimizer, train[0][rows], train[1][rows])
    trained.append(nnx.state(model, nnx.Param))

average = Network(nnx.Rngs(0))
nnx.update(average, line(trained[0], trained[1], 0.5))
for state in trained:
    nnx.update(model, state)
    print(f"NNX, trained: {share_correct(model(test[0])):.3f}")
print(f"NNX, average: {share_correct(average(test[0])):.3f}")

# %% [markdown]
# ## Equinox
#
# The mask is drawn for the arrays of the module; the rest of it (activations, sizes) has no leaves to mask.


# %%
def fit(module, mask, seed):
    params, static = eqx.partition(module, eqx.is_inexact_array)
    optimizer = anchored(optax.adamw(3e-3, weight_decay=0.01), mask)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            logits = jax.vmap(eqx.combine(params, static))(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    for rows in batches(seed):
        params, state = step(params, state, train[0][rows], train[1][rows])
    return params, static


module = eqx.nn.MLP(64, 10, width_size=64, depth=2, key=jax.random.key(0))
start = eqx.filter(module, eqx.is_inexact_array)
mask = masks.bernoulli(jax.random.key(1), start, ratio=0.4)
(a, static), (b, _) = fit(module, mask, 1), fit(module, mask, 2)
for params, name in ((a, "trained"), (b, "trained"), (line(a, b, 0.5), "average")):
    print(f"Equinox, {name}: {share_correct(jax.vmap(eqx.combine(params, static))(test[0])):.3f}")

# %% [markdown]
# Anchors are where they started, in both networks, bit for bit:

# %%
moved = jax.tree.map(lambda p, s, m: int(jnp.sum((p != s) & ~m)), a, start, mask)
print("anchors that moved:", sum(jax.tree.leaves(moved)), "of", int(sum((~m).sum() for m in jax.tree.leaves(mask))))

# %% [markdown]
# ## The rest of the library, with either
#
# `from_nnx` and `from_equinox` make a network of a module: a function of its parameters, which ensembles, paths, matching and repair take. Two models are
# trained as one program; then the line between them is walked, and a point of it comes back as a module.

# %%
from tna_jax import barrier, ensemble, from_equinox, from_nnx
from tna_jax.connectivity import evaluate_paths

models = {
    "NNX": from_nnx(Network),  # what creates a module, so that more can be drawn
    "Equinox": from_equinox(lambda key: eqx.nn.MLP(64, 10, width_size=64, depth=2, key=key)),
}
for name, model in models.items():
    keys = jax.random.split(jax.random.key(2), 2)  # M = 2 orders of the data
    params, _ = jax.vmap(model.init)(jnp.stack([jax.random.key(0)] * 2))  # one initialization
    mask = jax.vmap(lambda p: masks.bernoulli(jax.random.key(1), p, ratio=0.4))(params)
    trainer = ensemble.Trainer(model.network, optax.adamw(3e-3, weight_decay=0.01), batch_size=32)
    members, _ = ensemble.train_ensemble(trainer, ensemble.init_ensemble(trainer, params, keys, mask), *train, 10)
    path = evaluate_paths(model.network, members.params, [(0, 1)], (0, 0.25, 0.5, 0.75, 1), {"test": test})["test"]
    print(
        f"{name}: accuracy along the path {np.round(path.accuracy[0], 3)}, barrier {barrier(path, metric='accuracy')[0]:.3f}"
    )
    middle = line(*(ensemble.member(members.params, i) for i in (0, 1)), 0.5)
    module = model.to_module(middle)
    logits = module(test[0]) if name == "NNX" else jax.vmap(module)(test[0])
    print(f"{name}: the module of the average {share_correct(logits):.3f}")
