# %% [markdown]
# # A soup
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/3_a_soup.ipynb)
#
# Sixteen networks, one average. Without anchors it is often worse than every one of its members; how much of that do anchors mend? Digits come with
# scikit-learn: nothing is downloaded.

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

from tna_jax import greedy_soup, masks, models
from tna_jax.connectivity import evaluate, evaluate_mixtures
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.networks import linen

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = jnp.asarray(images[order] / 16, jnp.float32)
labels = jnp.asarray(digits[order], jnp.int32)
train, held_out, test = ((inputs[a:b], labels[a:b]) for a, b in ((0, 1000), (1000, 1300), (1300, 1797)))

# %% [markdown]
# Three populations of sixteen from one initialization, trained as one program: mask ratio 0, 0.4 and 0.8. Each network sees the data in its own order.

# %%
M, RATIOS, EPOCHS = 16, (0.0, 0.4, 0.8), 20

network, init = linen(models.create("mlp", num_classes=10, depth=4, width=128), (64,))
start = jax.jit(lambda key: init(key)[0])(jax.random.key(0))
drawn = [masks.bernoulli(jax.random.key(1), start, ratio) for ratio in RATIOS]
repeat = lambda tree: jax.tree.map(lambda leaf: jnp.stack([leaf] * M), tree)  # noqa: E731
concatenate = lambda trees: jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *trees)  # noqa: E731

trainer = Trainer(network, optax.sgd(0.1, momentum=0.9), batch_size=32)
orders = jax.random.split(jax.random.key(2), M)
members = init_ensemble(
    trainer, concatenate([repeat(start)] * 3), jnp.concatenate([orders] * 3), concatenate([repeat(m) for m in drawn])
)
members, history = train_ensemble(trainer, members, *train, epochs=EPOCHS)
populations = [jax.tree.map(lambda leaf, k=k: leaf[k * M : (k + 1) * M], members.params) for k in range(3)]

# %% [markdown]
# The average of the first N networks for N = 1 ... 16: a row of weights each, all evaluated in one pass.

# %%
weights = np.tril(np.ones((M, M), np.float32)) / np.arange(1, M + 1, dtype=np.float32)[:, None]
data = {"held out": held_out, "test": test}
averages = [evaluate_mixtures(network, population, weights, data) for population in populations]
singles = [evaluate(network, population, data) for population in populations]

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for ratio, average, single, color in zip(RATIOS, averages, singles, ("#c7522a", "#1b6ca8", "#3a7d44"), strict=True):
    axis.plot(
        range(1, M + 1),
        average["test"].accuracy,
        "-o",
        markersize=3,
        color=color,
        label=f"average of N, ratio {ratio:g}",
    )
    mean, spread = single["test"].accuracy.mean(), single["test"].accuracy.std(ddof=1)
    axis.axhspan(mean - spread, mean + spread, color=color, alpha=0.1, label=f"members, ratio {ratio:g}")
axis.set(xlabel="N, networks averaged", ylabel="test accuracy")
axis.legend(frameon=False, fontsize=8)
axis.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# The greedy soup keeps an ingredient only if the *held-out* accuracy does not fall with it. The test set is looked at once, at the end.

# %%
accuracy = jax.jit(lambda params, x, y: (network(params, x).argmax(-1) == y).mean())
for ratio, population, single in zip(RATIOS, populations, singles, strict=True):
    soup, recipe = greedy_soup(population, lambda params: float(accuracy(params, *held_out)))
    best = int(np.argmax(single["held out"].accuracy))
    print(
        f"ratio {ratio:g}: greedy soup of {int(recipe.weights.sum())} networks {float(accuracy(soup, *test)):.3f}, "
        f"best single network {single['test'].accuracy[best]:.3f}, mean {single['test'].accuracy.mean():.3f}"
    )
