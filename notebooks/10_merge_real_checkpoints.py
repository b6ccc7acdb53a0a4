# %% [markdown]
# # Merge real checkpoints
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/10_merge_real_checkpoints.ipynb)
#
# Model folders as `transformers` writes them (config.json beside safetensors), fine-tuned from one base, become one folder, by `tna merge`. What would be merged into nonsense is refused
# before a byte is written. So that this runs anywhere, the checkpoints are made here: a small vision transformer on scikit-learn's digits, and three fine-tunings of it, each of which saw
# other digits. With checkpoints of your own, set `BASE` and `MODELS` and begin at "Merge".

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
import functools
import json
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from sklearn.datasets import load_digits

from tna_jax import anchored, hf, masks, models

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = np.float32(images[order].reshape(-1, 8, 8, 1) / 16)
labels = np.int32(digits[order])
base_data, tuning, test = ((inputs[a:b], labels[a:b]) for a, b in ((0, 500), (500, 1300), (1300, 1797)))

# %% [markdown]
# ## The checkpoints
#
# Plain JAX: a step of Adam, one loop. `anchored` keeps 40 % of the entries of each fine-tuning at the values of the base, the same ones in all three; a ratio of 0 is the usual fine-tuning.

# %%
vit = models.create("vit", num_classes=10, image_size=8, patch=2, width=48, depth=2, heads=4, mlp=96)


@functools.cache
def training(ratio, rate):
    """The optimizer, and one step of it, compiled once for all models that are trained so."""
    mask = masks.bernoulli(jax.random.key(7), start, ratio)
    optimizer = anchored(optax.adam(rate), mask)

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(vit.apply({"params": params}, x), y).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(optimizer.init), step


def fit(params, data, epochs, rate, ratio=0.0, seed=0):
    init, step = training(ratio, rate)
    state, draws = init(params), np.random.default_rng(seed)
    for _ in range(epochs):
        for batch in draws.permutation(len(data[0]))[: len(data[0]) // 25 * 25].reshape(-1, 25):
            params, state = step(params, state, data[0][batch], data[1][batch])
    return params


start = jax.jit(vit.init)(jax.random.key(0), inputs[:1])["params"]
base = fit(start, base_data, epochs=12, rate=2e-3)
folder = Path("checkpoints")
hf.save(folder / "base", vit, base, overwrite=True)
parts = {"a": (0, 1, 2, 3, 4), "b": (3, 4, 5, 6, 7), "c": (6, 7, 8, 9, 0)}
for ratio in (0.0, 0.4):
    for seed, (name, classes) in enumerate(parts.items()):
        own = np.isin(tuning[1], classes)
        tuned = fit(base, (tuning[0][own], tuning[1][own]), epochs=6, rate=5e-4, ratio=ratio, seed=seed)
        hf.save(folder / f"{name}-{ratio:g}", vit, tuned, overwrite=True)

BASE = str(folder / "base")
MODELS = [str(folder / f"{name}-0") for name in parts]
print(sorted(path.name for path in folder.iterdir()))

# %% [markdown]
# ## Merge
#
# The command in a terminal is `tna merge A B C --base BASE --method ties -o MERGED`. `--dry-run` reads the headers alone and says what would be done.


# %%
def tna(*words):
    done = subprocess.run([sys.executable, "-m", "tna_jax", *map(str, words)], capture_output=True, text=True)
    print(done.stdout or done.stderr)
    return done.returncode


tna(
    "merge",
    *MODELS,
    "--base",
    BASE,
    "--method",
    "ties",
    "--method-options",
    "density=0.5",
    "-o",
    "merged/ties",
    "--dry-run",
)

# %%
Path("merged").mkdir(exist_ok=True)
METHODS = {"average": (), "task_arithmetic": ("strength=0.5",), "ties": ("density=0.5", "strength=1")}
for ratio in (0.0, 0.4):
    found = [model.replace("-0", f"-{ratio:g}") for model in MODELS]
    for method, options in METHODS.items():
        more = ("--method-options", *options) if options else ()
        base_of = () if method == "average" else ("--base", BASE)
        assert (
            tna(
                "merge",
                *found,
                *base_of,
                "--method",
                method,
                *more,
                "-o",
                f"merged/{method}-{ratio:g}",
                "--overwrite",
                "--quiet",
            )
            == 0
        )

# %% [markdown]
# A merged folder is one as any other: `config.json`, safetensors, a model card that says what it was made of, and a report (`tna report merged/ties-0`).

# %%
print(sorted(path.name for path in Path("merged/ties-0").iterdir()))
print(
    {
        name: value
        for name, value in json.loads(Path("merged/ties-0/merge.json").read_text()).items()
        if name in ("method", "method_options", "weights")
    }
)

# %% [markdown]
# ## What came out
#
# One model of the three, on all ten digits. Each fine-tuning alone knows its five digits best and forgets others.


# %%
@jax.jit
def right(params, x, y):
    return (vit.apply({"params": params}, x).argmax(-1) == y).mean()


def accuracy(name):
    return float(right(hf.load(name).params, *test))


kinds = {"base": [accuracy(BASE)] * 2}
kinds["fine-tuned, mean of three"] = [
    np.mean([accuracy(folder / f"{name}-{ratio:g}") for name in parts]) for ratio in (0.0, 0.4)
]
kinds |= {method: [accuracy(f"merged/{method}-{ratio:g}") for ratio in (0.0, 0.4)] for method in METHODS}
for kind, values in kinds.items():
    print(f"{kind:28} no anchors {values[0]:.3f}   ratio 0.4 {values[1]:.3f}")

# %%
figure, axis = plt.subplots(figsize=(6, 2.6), layout="constrained")
for i, (ratio, marker) in enumerate(((0, "o"), (0.4, "s"))):
    axis.plot(
        [values[i] for values in kinds.values()],
        list(kinds),
        marker,
        label="no anchors" if not ratio else "mask ratio 0.4",
    )
error = float(np.sqrt(0.9 * 0.1 / len(test[1])))
axis.set(xlabel=f"test accuracy, all ten digits (standard error about {error:.3f})")
axis.invert_yaxis()
axis.grid(alpha=0.3)
axis.legend(frameon=False)

# %% [markdown]
# One draw of each: a demonstration, not a comparison of methods ([which merge?](../docs/which-merge.md) has that, with spread).
#
# ## What is refused
#
# Models with other classes, shapes, tokenizers or dtypes are not averaged in silence: one line says what differs, and which option overrides it.

# %%
other = models.create("vit", num_classes=7, image_size=8, patch=2, width=48, depth=2, heads=4, mlp=96)
hf.save(folder / "seven", other, jax.jit(other.init)(jax.random.key(1), inputs[:1])["params"], overwrite=True)
assert tna("merge", MODELS[0], folder / "seven", "-o", "merged/nonsense") == 2

# %% [markdown]
# **Yours**: put names of folders into `MODELS` and `BASE`. Folders of the hub are downloaded with `hf.fetch(repository)`; files of one safetensors each are merged as well. Models that were not trained from one
# base do not average, whatever their files say: `--match` permutes their hidden units first.
