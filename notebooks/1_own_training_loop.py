# %% [markdown]
# # Anchors in your own training loop
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/1_own_training_loop.ipynb)
#
# Two networks, one line changed, and the straight line between them stops being a valley of errors. Digits come with scikit-learn: nothing is downloaded.

# %%
# In Colab this installs the package and, where there is a GPU, JAX for it; in an environment that has the package it does nothing.
import importlib.util
import shutil
import subprocess
import sys

if importlib.util.find_spec("tna_jax") is None:
    extras = "cli,cuda12" if shutil.which("nvidia-smi") else "cli"
    source = f"tna-jax[{extras}] @ git+https://github.com/OWNER/tna_jax"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", source], check=True)

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from tna_jax import barrier, evaluate_paths, masks, pairs, tna_mask
from tna_jax.connectivity import grid

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = jnp.asarray(images[order] / 16, jnp.float32)
labels = jnp.asarray(digits[order], jnp.int32)
train, test = (inputs[:1300], labels[:1300]), (inputs[1300:], labels[1300:])

# %% [markdown]
# A network and a training loop as you may have them: four hidden layers, plain JAX and optax. Nothing in it knows about anchors but its argument `optimizer`.


# %%
def init(key, sizes=(64, 128, 128, 128, 128, 10)):
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5, "bias": jnp.zeros(b)}
        for k, a, b in zip(keys, sizes, sizes[1:], strict=False)
    ]


def network(params, x):
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["kernel"] + layer["bias"])
    return x @ params[-1]["kernel"] + params[-1]["bias"]


def loss(params, x, y):
    return optax.softmax_cross_entropy_with_integer_labels(network(params, x), y).mean()


def fit(params, optimizer, seed, epochs=30, batch=32):
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    shuffle = np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(shuffle.permutation(len(train[0]))[:1280], 1280 // batch):
            params, state = step(params, state, train[0][rows], train[1][rows])
    return params


# %% [markdown]
# Two runs from **the same initial values** that see the data in different orders: first as always, then with 40 % of the weights anchored.
# `tna_mask(mask)` goes first in the chain; both runs share the mask. (For AdamW, noise, trust ratios: `anchored(optax.adamw(...), mask)`.)

# %%
start = init(jax.random.key(0))
mask = masks.bernoulli(jax.random.key(1), start, ratio=0.4)  # True trains, False is anchored

plain = optax.sgd(0.1, momentum=0.9)
aligned = optax.chain(tna_mask(mask), optax.sgd(0.1, momentum=0.9))  # the one line

paths = {}
for name, optimizer in (("plain", plain), ("anchored, ratio 0.4", aligned)):
    a, b = fit(start, optimizer, seed=1), fit(start, optimizer, seed=2)
    members = jax.tree.map(lambda *leaves: jnp.stack(leaves), a, b)
    paths[name] = evaluate_paths(network, members, pairs(2), grid(21), {"test": test})["test"]

# %% [markdown]
# The path from one network (0) to the other (1). The barrier is what it loses on the way.

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, path), color in zip(paths.items(), ("#c7522a", "#1b6ca8"), strict=True):
    lost = float(barrier(path, metric="accuracy")[0])
    axis.plot(path.alphas, path.accuracy[0], marker="o", markersize=3, color=color, label=f"{name}: barrier {lost:.3f}")
axis.set(xlabel="α, from one network to the other", ylabel="test accuracy")
axis.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
axis.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# Anchors have not moved, bit for bit, and that is checked rather than believed:

# %%
for layer, first, keep in zip(b, start, mask, strict=True):
    for name in layer:
        assert np.array_equal(np.asarray(layer[name])[~keep[name]], np.asarray(first[name])[~keep[name]])
print(f"{float(masks.anchored_ratio(mask)):.1%} of the weights are where they started")
