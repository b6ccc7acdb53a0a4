# %% [markdown]
# # A federation of 20 clients
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/tna_jax/blob/main/notebooks/5_a_federation_of_20_clients.ipynb)
#
# Twenty clients with unlike data (Dirichlet 0.3), a server that averages, and three mask schedules: none (FedAvg), FedPFN (a fresh set of anchors each round)
# and FedPNU (the second half of a client's steps trains what the first half anchored). Digits come with scikit-learn: nothing is downloaded.

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
from sklearn.datasets import load_digits

from tna_jax import federated, models
from tna_jax.federated.evaluation import TestSet, evaluate
from tna_jax.federated.partition import padded, partition
from tna_jax.federated.simulation import init_client_states, simulate_round
from tna_jax.networks import linen

images, digits = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
inputs = (images[order] / 16).astype(np.float32)
labels = digits[order].astype(np.int32)
train, test = (inputs[:1300], labels[:1300]), TestSet(inputs[1300:], labels[1300:])

# %% [markdown]
# Who has what: each class is spread over the clients by shares drawn from a Dirichlet distribution.

# %%
CLIENTS = 20
parts = partition("dirichlet", jax.random.key(7), train[1], CLIENTS, alpha=0.3, least=5)
clients = padded(parts)

counts = np.array([np.bincount(train[1][part], minlength=10) for part in parts])  # (clients, classes)
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
bottom = np.zeros(CLIENTS)
for digit in range(10):
    axis.bar(range(CLIENTS), counts[:, digit], bottom=bottom, color=plt.get_cmap("tab10")(digit), label=str(digit))
    bottom += counts[:, digit]
axis.set(xlabel="client", ylabel="examples", xticks=range(CLIENTS))
axis.legend(title="digit", ncols=2, frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
axis.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# All parties agree on a federation; the schedule of masks is a thing of its own and goes with every algorithm (`federated.ALGORITHMS`) and every server.

# %%
ROUNDS, RATE = 25, 0.1
network, init = linen(models.create("mlp", num_classes=10, depth=3, width=64), (64,))
start = jax.jit(lambda key: init(key)[0])(jax.random.key(0))
federation = federated.Federation(network, CLIENTS, num_classes=10, epochs=2, batch_size=16)
schedules = {
    "FedAvg": federated.Schedule("none"),
    "FedPFN, ratio 0.4": federated.Schedule("pfn", ratio=0.4),
    "FedPNU, ratio 0.4": federated.Schedule("pnu", ratio=0.4),
}
print("algorithms:", ", ".join(federated.ALGORITHMS))

# %%
curves = {}
for name, schedule in schedules.items():
    server = federated.init_server(federation, start)
    client_states, scores = init_client_states(federation, server), []
    for number in range(ROUNDS):
        server, what = simulate_round(
            federation,
            schedule,
            jax.random.key(3),
            number,
            server,
            client_states,
            clients,
            *map(jnp.asarray, train),
            RATE,
            participation=0.5,
        )
        scores.append(float(evaluate(federation, server, client_states, test).accuracy))
    curves[name] = scores

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for (name, scores), color in zip(curves.items(), ("#c7522a", "#1b6ca8", "#3a7d44"), strict=True):
    axis.plot(
        range(1, ROUNDS + 1), scores, "-o", markersize=3, color=color, label=f"{name}: {np.mean(scores[-5:]):.3f}"
    )
axis.set(xlabel="round (ten of twenty clients take part)", ylabel="test accuracy of the server's model")
axis.legend(frameon=False, fontsize=8, title="mean of the last 5 rounds", title_fontsize=8, loc="lower right")
axis.spines[["top", "right"]].set_visible(False)

# %% [markdown]
# One seed and few rounds: enough to see it work, not to rank schedules. Where anchors hold part of the weights a round trains fewer of them, and the curve may well stay
# behind FedAvg at first, as here. The page about federated learning in the docs has rounds, seeds and spread. Between real machines the same algorithms run
# on Flower.
