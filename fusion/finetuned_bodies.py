"""Bodies of MiniLM fine-tuned on text tasks, each under a head of its own, with shared anchors and without: what is merged.

The head of a task is a logistic regression on the base's features; then it stays, and the body is fine-tuned under it, by
AdamW. So every body, the base and each merged one too, is scored on a task under the same head. Bodies of one task and seed
train at once, one for each mask ratio, from the same batches. A finished pair is a file, and is read when it is there.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fusion import minilm
from fusion.minilm import Encoder
from tna_jax import finetuning
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.io import safetensors
from tna_jax.masks import AnchorRecipe, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cold.tasks import drawn
from tna_jax.programs.data import text_sources, tokens
from tna_jax.programs.data.source import SUBSET_SEED, permutation
from train.cells import RUNS

DECAYS = (3e-2, 1e-1, 3e-1, 1.0)
"""Of heads, chosen on held-out examples."""
BATCH = 32


class Examples(NamedTuple):
    """Texts of a split on which bodies are scored."""

    tokens: np.ndarray
    """(N, 2, L)"""
    labels: np.ndarray
    """(N,)"""
    batches: list[tuple[np.ndarray, Any]]
    """Rows, and what a body takes for them: texts of about one length together, so that less padding is computed with."""


class Task(NamedTuple):
    """A text task."""

    name: str
    title: str
    num_classes: int
    train: tuple[np.ndarray, np.ndarray]
    """Tokens (N, 2, L) and labels (N,)."""
    held_out: Examples
    """For choosing."""
    test: Examples
    how_split: str


class Bodies(NamedTuple):
    """What was fine-tuned with one seed at one mask ratio."""

    models: list[Params]
    """A body for each task."""
    heads: list[dict[str, jax.Array]]
    """The head of each task."""


def tasks(encoder: Encoder, settings: dict[str, Any]) -> list[Task]:
    """Loads and encodes the tasks; of each split as many examples as `settings` says, a seeded choice."""
    loaded = []
    for name in settings["tasks"]:
        task = text_sources.load(name)
        held_out, test = (
            examples(encoder, *encoded(encoder, split.take(seeded(len(split.labels), settings[key])), settings))
            for split, key in ((task.validation, "held_out_examples"), (task.test, "test_examples"))
        )
        train = encoded(encoder, task.train, settings)
        loaded.append(Task(name, task.title, task.num_classes, train, held_out, test, task.how_split))
    return loaded


def seeded(size: int, count: int) -> np.ndarray:
    """Returns `count` rows of `size`, the same in every run."""
    return permutation(size, SUBSET_SEED)[:count]


def encoded(encoder: Encoder, split: Any, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens (N, 2, L) and labels (N,)."""
    return tokens.encode_split(encoder.tokenizer, split, settings["length"])


def examples(encoder: Encoder, encoded: np.ndarray, labels: np.ndarray) -> Examples:
    """Returns examples with the batches that bodies are scored on; a batch is filled up with its first row."""
    length, batches = encoded.shape[2], []
    for rows, part in tokens.buckets(encoded, encoder.tokenizer.pad, [*range(8, length, 8), length]):
        for start in range(0, len(rows), BATCH):
            batch = part[start : start + BATCH]
            full = np.concatenate([batch, np.repeat(batch[:1], BATCH - len(batch), axis=0)])
            batches.append((rows[start : start + BATCH], encoder.lower(full)))
    return Examples(encoded, labels, batches)


def inputs_of(encoder: Encoder, encoded: np.ndarray) -> Any:
    """Returns what a body takes for texts (N, 2, L), in NumPy."""
    parts = [jax.tree.map(np.asarray, encoder.lower(encoded[i : i + BATCH])) for i in range(0, len(encoded), BATCH)]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def features(encoder: Encoder, body: Params, split: Examples) -> np.ndarray:
    """Computes features (N, 384)."""
    result = np.empty((len(split.labels), encoder.width), np.float32)
    for rows, inputs in split.batches:
        result[rows] = np.asarray(encoder.features(body, inputs))[: len(rows)]
    return result


def folder(settings: dict[str, Any]) -> Path:
    """Returns the folder of the bodies made with these settings."""
    kept = (
        "tasks",
        "length",
        "steps",
        "batch_size",
        "learning_rate",
        "warmup",
        "ratios",
        "trained_layers",
        "head_examples",
    )
    digest = hashlib.sha256(json.dumps({key: settings[key] for key in kept}, sort_keys=True).encode()).hexdigest()
    return RUNS / "merging_methods" / digest[:8]


def finetuned(encoder: Encoder, given: list[Task], seed: int, settings: dict[str, Any]) -> list[Bodies]:
    """Returns the fine-tuned bodies of one seed, for each mask ratio; trained now where they are not there."""
    trees = []
    for number, task in enumerate(given):
        file = folder(settings) / f"{task.name}_{seed}.safetensors"
        like = {"bodies": [encoder.body] * len(settings["ratios"]), "head": _shape(task.num_classes, encoder)}
        if not file.is_file():
            console.print(f"fine-tuning on {task.title}, seed {seed}", style="bold")
            file.parent.mkdir(parents=True, exist_ok=True)
            safetensors.save(file, _finetune(encoder, task, number, seed, settings))
        trees.append(safetensors.load(file, like))
    heads = [tree["head"] for tree in trees]
    return [Bodies([tree["bodies"][i] for tree in trees], heads) for i in range(len(settings["ratios"]))]


def _shape(num_classes: int, encoder: Encoder) -> dict[str, Any]:
    return {"kernel": jnp.zeros((encoder.width, num_classes)), "bias": jnp.zeros(num_classes)}


def _finetune(encoder: Encoder, task: Task, number: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Fits the head of a task, and fine-tunes a body for each mask ratio under it, both on other examples, each once."""
    key = stream(seed, Stream.RUN_DATA, number)
    first = settings["head_examples"]
    texts, labels = drawn(key, task, first + settings["steps"] * settings["batch_size"])  # type: ignore[arg-type]
    head = _head(encoder, task, examples(encoder, texts[:first], labels[:first]))
    texts, labels = texts[first:], labels[first:]
    inputs = inputs_of(encoder, texts)
    trainer = Trainer(
        encoder.network,
        finetuning.adamw(settings["steps"], settings["warmup"]),
        settings["batch_size"],
        "map",
    )
    count = len(settings["ratios"])

    def repeated(tree: Any) -> Any:
        return jax.tree.map(lambda x: jnp.broadcast_to(x[None], (count, *x.shape)), tree)

    masks = [AnchorRecipe(ratio=ratio, seed=seed).draw(encoder.body) for ratio in settings["ratios"]]
    members = init_ensemble(
        trainer,
        repeated(encoder.body),
        jnp.stack([stream(seed, Stream.RUN_ORDER, number)] * count),
        masks,
        finetuning.stack([finetuning.FinetuneConfig(settings["learning_rate"])] * count),
        repeated(head),
    )
    members, _ = train_ensemble(trainer, members, inputs, labels, 1)
    return {
        "bodies": [jax.tree.map(lambda x, i=i: np.asarray(x[i]), members.params) for i in range(count)],
        "head": head,
    }


def _head(encoder: Encoder, task: Task, train: Examples) -> dict[str, jax.Array]:
    """Fits a head to the base's features, with the decay that is best on held-out examples."""
    known, held_out = (jnp.asarray(features(encoder, encoder.body, split)) for split in (train, task.held_out))
    heads = [minilm.fit_head(known, jnp.asarray(train.labels), task.num_classes, decay) for decay in DECAYS]
    right = [accuracy(held_out, head, task.held_out.labels) for head in heads]
    return heads[int(np.argmax(right))]


def accuracy(features: Any, head: dict[str, jax.Array], labels: np.ndarray) -> float:
    """Computes the share of examples whose largest logit is the label's."""
    logits = np.asarray(features) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    return float((logits.argmax(1) == labels).mean())
