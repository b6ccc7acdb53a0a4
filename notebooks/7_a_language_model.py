# %% [markdown]
# # A language model of your own
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/7_a_language_model.ipynb)
#
# A small GPT in Flax NNX, trained twice from different initial values, with anchors and without, and the line between the two: nats a token and
# perplexity where other notebooks have accuracies. All that changes is `objective=`. The text is Python's own help, which comes with it: nothing is
# downloaded.

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
from pydoc_data.topics import topics

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

from tna_jax import barrier, evaluate_path, from_nnx, masks, objectives
from tna_jax.ensemble import Trainer, init_ensemble, member, train_ensemble

text = np.frombuffer("\n".join(topics.values()).encode("ascii", "replace"), np.uint8)
tokens = np.where((text >= 32) & (text < 127), text - 31, 0).astype(np.int32)  # 96 characters, 0 for the end of a line
pieces = tokens[: 4000 * 49].reshape(-1, 49)
inputs, targets = objectives.next_tokens(pieces)  # (N, 48) each: characters, and those that follow
test = np.arange(len(pieces)) % 10 == 0
train_data, test_data = (inputs[~test], targets[~test]), (inputs[test], targets[test])
print(f"{len(train_data[0])} pieces of {inputs.shape[1]} characters for training, {len(test_data[0])} for test")

# %% [markdown]
# ## The network
#
# RMSNorm, causal attention, tied embeddings: one block is enough to learn how words begin. `from_nnx` makes a function of its parameters of it.


# %%
class GPT(nnx.Module):
    def __init__(self, rngs, characters=96, width=48, heads=4, length=48):
        self.heads = heads
        self.embedding = nnx.Embed(characters, width, rngs=rngs)
        self.positions = nnx.Embed(length, width, rngs=rngs)
        self.norms = nnx.List([nnx.RMSNorm(width, rngs=rngs) for _ in range(3)])
        self.mix = nnx.Linear(width, 3 * width, use_bias=False, rngs=rngs)
        self.out = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, use_bias=False, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, use_bias=False, rngs=rngs)

    def __call__(self, tokens):  # (B, T) -> logits (B, T, characters)
        x = self.embedding(tokens) + self.positions(jnp.arange(tokens.shape[1]))[None]
        mixed = self.mix(self.norms[0](x)).reshape(*x.shape[:2], 3, self.heads, -1)
        attended = jax.nn.dot_product_attention(*(mixed[:, :, i] for i in range(3)), is_causal=True)
        x = x + self.out(attended.reshape(x.shape))
        x = x + self.down(nnx.gelu(self.up(self.norms[1](x))))
        return self.embedding.attend(self.norms[2](x))


model = from_nnx(GPT)

# %% [markdown]
# ## Two models
#
# Both are trained as one program, each with initial values and an order of the data of its own. Under the mask 40 % of the weights stay where the first
# model started, in both.


# %%
def trained(ratio):
    params, _ = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))  # M = 2 different initial values
    mask = jax.vmap(lambda p: masks.bernoulli(jax.random.key(1), p, ratio=ratio))(params)  # one mask for both
    first = member(params, 0)
    params = jax.vmap(lambda p, m: masks.share_anchors(p, first, m))(params, mask)
    trainer = Trainer(model.network, optax.adam(3e-3), batch_size=32, objective=objectives.next_token())
    members = init_ensemble(trainer, params, jax.random.split(jax.random.key(2), 2), mask)
    members, history = train_ensemble(trainer, members, *train_data, epochs=3)
    print(f"anchors {ratio:g}: training loss {np.round(history[-1].loss, 3)} nats a token")
    return [member(members.params, i) for i in range(2)]


pairs = {ratio: trained(ratio) for ratio in (0.0, 0.4)}

# %% [markdown]
# ## The line between them

# %%
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for ratio, pair in pairs.items():
    path = evaluate_path(model.network, *pair, test_data, objective=objectives.next_token())
    axis.plot(path.alphas, path.loss, marker="o", label=f"anchors {ratio:g}")
    print(
        f"anchors {ratio:g}: barrier {barrier(path):.3f} nats a token, {barrier(path, metric='perplexity'):.2f} of perplexity; "
        f"perplexity at the ends {path.value('perplexity')[[0, -1]].round(2)}"
    )
axis.set(xlabel="α, from one model to the other", ylabel="test loss, nats a token")
axis.legend(frameon=False)
plt.show()

# %% [markdown]
# From different initial values the midpoint forgets most of what both have learned; anchors leave more of it. From one initialization
# (`jax.random.key(0)` twice) models as small as these hardly have a barrier.
#
# ## A model comes back as a module
#
# It continues a text, character by character.

# %%
module = model.to_module(pairs[0.0][0])
following = nnx.jit(lambda module, tokens: module(tokens)[0, -1])
written = test_data[0][:1]
for i in range(80):
    logits = following(module, jnp.asarray(written[:, -48:]))
    written = np.append(written, [[int(jax.random.categorical(jax.random.key(i), logits))]], axis=1)
print("".join(chr(token + 31) if token else "\n" for token in written[0].tolist()))
