# %% [markdown]
# # ColD Fusion in miniature
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/4_cold_fusion_in_miniature.ipynb)
#
# Many fine-tune one shared *body*, each on a task of their own with a *head* of their own; the bodies are averaged and sent out again (Don-Yehiya et al.,
# arXiv 2212.01378). Here: five tasks on digits ("which of these two?"), one body of two layers, and anchors drawn afresh in each iteration.
# Nobody sees another one's data or head. Digits come with scikit-learn: nothing is downloaded.

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

from tna_jax import anchored, cold_fusion, models
from tna_jax.networks import linen

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
images, digits = (images[order] / 16).astype(np.float32), digits[order]
TASKS = ((0, 1), (2, 3), (4, 5), (6, 7), (8, 9))  # a contributor each
FEW = 60  # training examples of a contributor


def task(pair):
    """Training and test examples of one contributor: is it the second digit of the pair?"""
    rows = np.flatnonzero(np.isin(digits, pair))
    x, y = jnp.asarray(images[rows]), jnp.asarray(digits[rows] == pair[1], jnp.int32)
    return (x[:FEW], y[:FEW]), (x[FEW:], y[FEW:])


train, test = zip(*map(task, TASKS), strict=True)

# %% [markdown]
# The network: its last layer is the head. Contributors start from one body and heads of their own.

# %%
K = len(TASKS)
network, init = linen(models.create("mlp", num_classes=2, depth=2, width=64), (64,))
first = lambda key: init(key)[0]  # noqa: E731
start = jax.jit(first)(jax.random.key(0))
heads = jax.jit(jax.vmap(first))(jax.random.split(jax.random.key(1), K))
HEAD = sorted(start)[-1]
is_head = lambda path: HEAD in path  # noqa: E731
print("body:", [name for name in sorted(start) if name != HEAD], "head:", HEAD)

task_inputs, task_labels = (jnp.stack(parts) for parts in zip(*train, strict=True))  # (K, FEW, 64), (K, FEW)


@jax.jit
def fine_tune(params, mask, key):
    """Every contributor trains body and head on its own task, under the common mask: five epochs in batches of 20, all at once."""
    optimizer = anchored(optax.sgd(0.05, momentum=0.9), mask)

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(network(params, x), y).mean()

    def fit(params, x, y, key):
        def step(carry, rows):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, x[rows], y[rows]), state, params)
            return (optax.apply_updates(params, updates), state), None

        orders = jax.vmap(lambda k: jax.random.permutation(k, FEW))(jax.random.split(key, 5)).reshape(-1, 20)
        return jax.lax.scan(step, (params, optimizer.init(params)), orders)[0][0]

    return jax.vmap(fit)(params, task_inputs, task_labels, jax.random.split(key, K))


@jax.jit
def accuracy_of(params, x, y):
    return (network(params, x).argmax(-1) == y).mean()


def accuracy(params):
    """(K,) test accuracy of each contributor's model on its own task."""
    return np.array([float(accuracy_of(jax.tree.map(lambda leaf, k=k: leaf[k], params), *test[k])) for k in range(K)])


# %% [markdown]
# Twelve iterations with plain averaging and with 40 % of the body anchored. Accuracy is that of the *fused* body with each contributor's head, before it
# fine-tunes again.

# %%
ITERATIONS = 12
curves = {}
for ratio in (0.0, 0.4):
    params, scores = cold_fusion.broadcast_body(start, heads, is_head), []
    for number in range(ITERATIONS):
        params, mask = cold_fusion.cold_fusion_round(
            jax.random.key(5), number, params, ratio, lambda p, m, n=number: fine_tune(p, m, jax.random.key(n)), is_head
        )
        scores.append(accuracy(params))
    curves[ratio] = np.array(scores)  # (iterations, K)

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (ratio, scores), color in zip(curves.items(), ("#c7522a", "#1b6ca8"), strict=True):
    axis.plot(
        range(1, ITERATIONS + 1),
        scores.mean(1),
        "-o",
        markersize=3,
        color=color,
        label=f"ratio {ratio:g}, mean of tasks",
    )
    axis.fill_between(
        range(1, ITERATIONS + 1),
        scores.min(1),
        scores.max(1),
        color=color,
        alpha=0.1,
        linewidth=0,
        label="worst to best task",
    )
axis.set(xlabel="iteration", ylabel="test accuracy of the fused body")
axis.legend(frameon=False, fontsize=8, loc="lower right")
axis.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# One seed and an easy problem: this shows how it works, not that anchors win. What was measured, with spread, is on the page about ColD Fusion in the docs. The anchored
# entries of the last iteration are equal in all contributors, so the average copied them:

# %%
body = next(name for name in sorted(params) if name != HEAD)
kernel = np.asarray(params[body]["kernel"])
print("bodies are equal:", all(np.array_equal(kernel[0], other) for other in kernel))
print(
    "heads are their own:",
    not np.array_equal(np.asarray(params[HEAD]["kernel"])[0], np.asarray(params[HEAD]["kernel"])[1]),
)
