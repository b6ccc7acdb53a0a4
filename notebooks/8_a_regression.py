# %% [markdown]
# # A regression of your own
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/8_a_regression.ipynb)
#
# A small network in Flax NNX predicts the progression of diabetes (Efron et al. 2004, in scikit-learn: nothing is downloaded). Two of them from
# different initial values, with anchors and without; the line between them in squared error; then the same after matching their hidden units.

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
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_diabetes

from tna_jax import barrier, evaluate_path, from_nnx, masks, matching, objectives
from tna_jax.ensemble import Trainer, init_ensemble, member, train_ensemble

features, progression = load_diabetes(return_X_y=True)
features = (features / features.std(0)).astype(np.float32)
targets = ((progression - progression.mean()) / progression.std()).astype(np.float32)[:, None]  # (442, 1)
held_out = np.arange(len(features)) % 5 == 0
train_data, test_data = ((features[rows], targets[rows]) for rows in (~held_out, held_out))

# %% [markdown]
# ## The network, and what it is trained for
#
# `regression()` is the squared error; `regression("absolute")` the absolute one. Both are measured in any case.


# %%
class Net(nnx.Module):
    def __init__(self, rngs, width=64):
        self.first = nnx.Linear(10, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.last = nnx.Linear(width, 1, rngs=rngs)

    def __call__(self, x):  # (B, 10) -> (B, 1)
        return self.last(nnx.relu(self.second(nnx.relu(self.first(x)))))


model, objective = from_nnx(Net), objectives.regression()


def trained(ratio):
    """Two models with different initial values, but for the anchors, which are those of the first."""
    keys = jax.random.split(jax.random.key(0), 2)
    params, _ = jax.vmap(model.init)(keys)
    mask = masks.bernoulli(jax.random.key(1), member(params, 0), ratio=ratio)
    params = jax.vmap(lambda p: masks.share_anchors(p, member(params, 0), mask))(params)
    mask = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), mask)
    trainer = Trainer(model.network, optax.adam(3e-3), batch_size=32, objective=objective)
    members, _ = train_ensemble(trainer, init_ensemble(trainer, params, keys, mask), *train_data, epochs=60)
    return [member(members.params, i) for i in range(2)]


pairs = {ratio: trained(ratio) for ratio in (0.0, 0.4)}

# %% [markdown]
# ## The line between them, before and after matching
#
# Matching finds the hidden units by tracing the network: it needs nothing but the function.

# %%
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for (ratio, (a, b)), color in zip(pairs.items(), ("tab:blue", "tab:orange"), strict=True):
    spec = matching.permutation_spec(model.network, a, train_data[0][:16])
    matched = matching.weight_matching(spec, a, b, key=jax.random.key(0)).params
    for other, style, name in ((b, "-", "as trained"), (matched, "--", "matched")):
        path = evaluate_path(model.network, a, other, test_data, objective=objective)
        axis.plot(path.alphas, path.loss, style, color=color, marker="o", label=f"anchors {ratio:g}, {name}")
        print(
            f"anchors {ratio:g}, {name}: ends {path.loss[[0, -1]].round(3)}, barrier {barrier(path):.3f} (squared error), "
            f"{barrier(path, metric='absolute_error'):.3f} (absolute error)"
        )
axis.set(xlabel="α, from one model to the other", ylabel="test loss, squared error")
axis.legend(frameon=False, ncols=2, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
plt.show()
