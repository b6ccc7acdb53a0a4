# %% [markdown]
# # Anchors in an FSDP training step
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/9_fsdp.ipynb)
#
# One network over eight devices: parameters, Adam's moments and the mask are split, each device holds an eighth. Anchoring adds no message between devices.
# The devices here are eight parts of one CPU. Digits come with scikit-learn: nothing is downloaded.

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
import re
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

jax.config.update("jax_platforms", "cpu")  # leave these two lines out on a machine with several accelerators
jax.config.update("jax_num_cpu_devices", 8)

from tna_jax import anchored, masks

images, digits = load_digits(return_X_y=True)
inputs, labels = (images / 16).astype(np.float32)[:1792], digits.astype(np.int32)[:1792]
mesh = jax.make_mesh((8,), ("fsdp",), axis_types=(AxisType.Auto,))
split = NamedSharding(mesh, PartitionSpec("fsdp"))

# %% [markdown]
# ## A network that says how it is split
#
# `nn.with_partitioning` puts each parameter into a box with the names of its axes on the mesh.


# %%
def dense(features, *axes):
    kernel = nn.with_partitioning(nn.initializers.lecun_normal(), axes)
    return nn.Dense(features, kernel_init=kernel)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(dense(256, "fsdp", None)(x))
        x = nn.relu(dense(256, "fsdp", None)(x))
        return dense(10, "fsdp", None)(x)


# %% [markdown]
# ## Two lines are new
#
# The mask is drawn inside the compiled initialization, each device its part, and goes into the optimizer's state. The step reads it there.

# %%
model, adamw = Network(), optax.adamw(3e-3, weight_decay=0.05)


def make(ratio):
    def init(key):
        params = model.init(key, jnp.zeros((1, 64)))["params"]
        if not ratio:
            return params, adamw.init(params)
        mask = masks.bernoulli(jax.random.key(7), params, ratio)  # new
        return params, anchored(adamw, mask).init(params)

    optimizer = anchored(adamw) if ratio else adamw  # new

    def step(params, state, x, y):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), y).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    layout = nn.get_sharding(jax.eval_shape(init, jax.random.key(0)), mesh)
    arguments, results = (*layout, split, split), (*layout, NamedSharding(mesh, PartitionSpec()))
    return jax.jit(init, out_shardings=layout), jax.jit(step, in_shardings=arguments, out_shardings=results)


jax.set_mesh(mesh)
init, step = make(ratio=0.4)
params, state = init(jax.random.key(0))
start, mask = jax.device_get((params, state.mask))


def bytes_on_one_device(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


for name, tree in {"parameters": params, "one moment": state.inner[0].mu, "mask": state.mask}.items():
    print(
        f"{name}: {sum(x.nbytes for x in jax.tree.leaves(tree)):,} bytes, {bytes_on_one_device(tree):,} on one device"
    )

# %% [markdown]
# The mask has the bits of one drawn on a single device:

# %%
alone = masks.bernoulli(jax.random.key(7), nn.unbox(start), 0.4)
pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(mask), strict=True)
print("the same bits:", all(np.asarray(a).tobytes() == b.tobytes() for a, b in pairs))

# %% [markdown]
# ## No collective is added
#
# What devices say to each other stands in the compiled text: the same, by kind and shape, with anchors and without.


# %%
def collectives(ratio):
    init, step = make(ratio)
    shapes = jax.eval_shape(init, jax.random.key(0))
    text = step.lower(*shapes, inputs[:64], labels[:64]).compile().as_text()
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    return Counter(re.findall(rf"= (\S+|\(.*?\)) ({kinds})(?:-start)?\(", text))


plain, with_anchors = collectives(None), collectives(0.4)
print("collectives:", sum(plain.values()), "without anchors,", sum(with_anchors.values()), "with")
print("the same ones:", plain == with_anchors)

# %% [markdown]
# ## Training

# %%
for number in range(56):
    rows = slice(64 * (number % 28), 64 * (number % 28) + 64)
    params, state, loss = step(params, state, *jax.device_put((inputs[rows], labels[rows]), split))
    if number % 11 == 0:
        print(f"step {number}: loss {float(loss):.3f}")

triples = zip(*map(jax.tree.leaves, (start, jax.device_get(params), mask)), strict=True)
print("anchors that moved:", sum(int(((p != q) & ~m).sum()) for p, q, m in triples))
