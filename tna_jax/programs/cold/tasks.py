"""Text tasks as the contributors of ColD Fusion see them: encoded, of one shape, with classifiers of one width.

Contributors train at once as one ensemble, so their classifiers have as many outputs as the task with the most classes. Those that a
task lacks are shut: their kernel is 0, their bias -1e9, and both are anchored, so that their probability is exactly 0.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import prng, trees
from tna_jax.hf import tokenizer
from tna_jax.io.errors import UsageError
from tna_jax.masks import Mask, Params
from tna_jax.programs.cli.dataset_names import absolute, own_tasks, short
from tna_jax.programs.data import text_sources, tokens
from tna_jax.programs.data.search_path import DOWNLOAD
from tna_jax.programs.data.source import SUBSET_SEED, DataError, permutation
from tna_jax.programs.training import backbone

SHUT = -1e9
"""Bias of a class that a task does not have."""
LAST = ("head", "head/out")
"""Modules that end a classifier: BERT's and RoBERTa's."""


class Task(NamedTuple):
    """An encoded task."""

    name: str
    """Of the user's own texts without folders, unless others are called so too."""
    title: str
    num_classes: int
    train: tuple[np.ndarray, np.ndarray]
    """Tokens (N, 2, L) and labels (N,)."""
    test: tuple[np.ndarray, np.ndarray]
    seen: bool
    """Whether it contributes."""
    how_split: str
    source: str = ""
    fingerprint: str = ""
    """Of the user's own texts, see `TextTask`."""
    notes: tuple[str, ...] = ()
    """What the user should know of the examples, with the task's title."""


def load(names: Sequence[str], seen: Sequence[str], settings: Any) -> list[Task]:
    """The tasks, encoded with the checkpoint's tokenizer; raises UsageError for what is not there."""
    folder = backbone.locate(settings.checkpoint)
    backbone.require_kind(folder, backbone.TEXT)
    words = tokenizer.load(folder)
    made, found, wrong = [], {}, {}
    own = own_tasks(tuple(names))
    hashes = dict(zip(own, getattr(settings, "task_fingerprints", None) or (), strict=False))
    for name in names:
        try:
            found[name] = text_sources.load(name, data_dir=settings.data_dir, recorded=hashes.get(name))
        except DataError as error:
            wrong[name] = str(error).removesuffix(DOWNLOAD)
    if wrong:
        first, *others = wrong
        more = f"; nor could these be read: {', '.join(others)}" if others else ""
        raise UsageError(f"--tasks, --unseen: {wrong[first]}{more}")
    shown = Counter(map(short, found))
    for name, task in found.items():
        label, title = (short(name), task.title) if shown[short(name)] == 1 else (absolute(name),) * 2
        rows = permutation(len(task.test.labels), SUBSET_SEED)[: settings.test_examples]
        train, test = (
            tokens.encode_split(words, split, settings.length) for split in (task.train, task.test.take(rows))
        )
        made.append(Task(label, title, task.num_classes, train, test, name in seen, task.how_split,
                         task.source, task.fingerprint, tuple(f"{title}: {note}" for note in task.notes)))  # fmt: skip
    return made


def recorded(settings: Any, tasks: Sequence[Task]) -> Any:
    """Returns the options as a run records them: the user's own texts by their absolute names and contents."""
    fingerprints = tuple(task.fingerprint for task in tasks if task.source)
    if not fingerprints:
        return settings
    names = [task.source or task.name for task in tasks]
    count = len(settings.tasks)
    return dataclasses.replace(
        settings, tasks=tuple(names[:count]), unseen=tuple(names[count:]), task_fingerprints=fingerprints
    )


@prng.same_bits
def drawn(key: jax.Array, task: Task, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` training examples, (count, 2, L) and (count,): none twice before all were taken."""
    size = len(task.train[1])
    rounds = -(-count // size)
    rows = np.concatenate([np.asarray(jax.random.permutation(jax.random.fold_in(key, i), size)) for i in range(rounds)])
    return task.train[0][rows[:count]], task.train[1][rows[:count]]


def shut(params: Params, num_classes: int) -> Params:
    """A model whose classifier never chooses a class from `num_classes` on."""

    def one(path: trees.KeyPath, leaf: jax.Array) -> jax.Array:
        if trees.name(path[:-1]) not in LAST:
            return leaf
        value = SHUT if path[-1] == "bias" else 0.0
        return jnp.asarray(leaf).at[..., num_classes:].set(value)

    return trees.like(params, [one(path, leaf) for path, leaf in trees.named_leaves(params)])


def shut_mask(mask: Mask, num_classes: int) -> Mask:
    """The mask that anchors what `shut` has set."""

    def one(path: trees.KeyPath, leaf: jax.Array) -> jax.Array:
        return jnp.asarray(leaf).at[..., num_classes:].set(False) if trees.name(path[:-1]) in LAST else leaf

    return trees.like(mask, [one(path, leaf) for path, leaf in trees.named_leaves(mask)])
