# %% [markdown]
# # Figure 2 on your own data
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/2_figure_2_on_your_own_data.ipynb)
#
# How much do anchors help on *your* data, and at which mask ratio? A sweep of ratios and seeds is one program here: all networks train at once. Put your arrays
# into the third cell; as it stands it takes digits, which come with scikit-learn.

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

from tna_jax import barrier, evaluate_paths, masks, models
from tna_jax.connectivity import grid
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.networks import linen

# %%
# Your data: inputs (N, ...) float32, labels (N,) int32 in [0, classes).
images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = jnp.asarray(images[order] / 16, jnp.float32)
labels = jnp.asarray(digits[order], jnp.int32)
train, test = (inputs[:1300], labels[:1300]), (inputs[1300:], labels[1300:])

# %% [markdown]
# The sweep: for each ratio and seed a pair of networks that differ in data order (one initialization), and a pair that differs in initial values as well
# (anchors copied from the first). Everything that differs between networks is an array with a leading axis, the network.

# %%
RATIOS, SEEDS, EPOCHS = (0.0, 0.2, 0.4, 0.6, 0.8), 3, 20

classes = int(labels.max()) + 1
network, init_with_state = linen(models.create("mlp", num_classes=classes, depth=4, width=128), inputs.shape[1:])
init = jax.jit(lambda key: init_with_state(key)[0])


def trio(seed, ratio):
    """Three networks: the first, one of the same initial values, one of other initial values; with their mask."""
    key = jax.random.key(seed)
    first, other = init(jax.random.fold_in(key, 0)), init(jax.random.fold_in(key, 1))
    mask = masks.bernoulli(jax.random.fold_in(key, 2), first, ratio)
    return [first, first, masks.share_anchors(other, first, mask)], [mask] * 3


cells = [(ratio, seed) for ratio in RATIOS for seed in range(SEEDS)]
trios = [trio(seed, ratio) for ratio, seed in cells]
stack = lambda trees: jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)  # noqa: E731
starts = stack([params for params, _ in trios for params in params])
anchors = stack([mask for _, mask in trios for mask in mask])
orders = jnp.stack([jax.random.fold_in(jax.random.key(100 + seed), i) for _, seed in cells for i in range(3)])

trainer = Trainer(network, optax.sgd(0.1, momentum=0.9), batch_size=32)
members = init_ensemble(trainer, starts, orders, anchors)
members, history = train_ensemble(trainer, members, *train, epochs=EPOCHS)
print(f"{len(orders)} networks trained")

# %%
firsts = 3 * np.arange(len(cells))
walks = np.concatenate([np.stack([firsts, firsts + 1], 1), np.stack([firsts, firsts + 2], 1)])
path = evaluate_paths(network, members.params, walks, grid(11), {"test": test})["test"]
lost = np.asarray(barrier(path, metric="accuracy")).reshape(2, len(RATIOS), SEEDS)
ends = np.asarray(path.accuracy)[:, [0, -1]].mean(1).reshape(2, len(RATIOS), SEEDS)
middle = np.asarray(path.accuracy)[:, 5].reshape(2, len(RATIOS), SEEDS)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axis, title, end, mid in zip(axes, ("same initialization", "different, anchors shared"), ends, middle, strict=True):
    for values, style, label in ((end, "-o", "ends"), (mid, "--s", "midpoint")):
        axis.errorbar(
            RATIOS,
            values.mean(1),
            values.std(1, ddof=1),
            fmt=style,
            color="#1b6ca8",
            capsize=2,
            markersize=4,
            label=label,
        )
    axis.fill_between(
        RATIOS, mid.mean(1), end.mean(1), color="#1b6ca8", alpha=0.12, linewidth=0, label="barrier at the middle"
    )
    axis.set(xlabel="mask ratio (share of anchored weights)", title=title)
    axis.spines[["top", "right"]].set_visible(False)
axes[0].set_ylabel("test accuracy")
axes[1].legend(frameon=False, loc="lower right")

# %%
print("ratio  same initialization  different")
for k, ratio in enumerate(RATIOS):
    print(
        f"{ratio:5.1f}  {lost[0, k].mean():.3f} ± {lost[0, k].std(ddof=1):.3f}        {lost[1, k].mean():.3f} ± {lost[1, k].std(ddof=1):.3f}"
    )

# %% [markdown]
# Take the smallest ratio whose barrier you can live with. If the right panel matters to you, the recipe of heavier anchors closes most of what is left: scale
# anchors by 1.5 and the other initial weights by 0.1 (`masks.scale_anchors`), kernels only (`where="kernel"`), with a short warm-up.
