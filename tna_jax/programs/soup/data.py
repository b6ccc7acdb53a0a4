"""What `tna soup` trains, chooses and reports on: images or a text task, held-out examples, shifted test sets."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import corruptions
from tna_jax.hf import tokenizer
from tna_jax.io.errors import UsageError
from tna_jax.prng import Stream, stream
from tna_jax.programs import data
from tna_jax.programs.cli import effects
from tna_jax.programs.cli.dataset_names import form
from tna_jax.programs.data import own, text, text_sources, tokens
from tna_jax.programs.data.search_path import DOWNLOAD
from tna_jax.programs.data.source import SUBSET_SEED, DataError, Split, permutation
from tna_jax.programs.training import backbone
from tna_jax.programs.training.backbone import Backbone
from tna_jax.programs.training.builders import transformer_fields


class Material(NamedTuple):
    """Examples and the network for them."""

    what: str
    """The data in words."""
    backbone: Backbone
    train: Split
    held_out: Split
    """Never trained on: the best model and the greedy soup are chosen by them."""
    tests: dict[str, tuple[jax.Array, jax.Array]]
    """Inputs and labels by split: `test`, then the shifted ones."""
    shifted: tuple[str, ...]
    """Names of those."""
    recorded: Any
    """The options as a run records them."""
    notes: tuple[str, ...] = ()
    """What the user should know of the data."""


def load(settings: Any, checkpoint: str) -> Material:
    """The data of the options, for the network of `checkpoint`; raises UsageError where they do not go together."""
    texts = is_text(settings.dataset)
    settings.check_kind(texts)
    return (_texts if texts else _images)(settings, checkpoint)


def is_text(name: str) -> bool:
    """Returns whether a data set holds texts; raises UsageError where that cannot be seen."""
    try:
        return text_sources.is_text(name)
    except DataError as error:
        raise UsageError(f"--dataset: {error}") from error


def _images(settings: Any, checkpoint: str) -> Material:
    try:
        request = data.Request(
            "classification",
            settings.target,
            settings.image_size if form(settings.dataset) in ("folder", "hf") else None,
            settings.dataset_sha256,
            settings.trust_code,
        )
        found = data.load(settings.dataset, data_dir=settings.data_dir, request=request)
        if problem := own.changed(found, settings.data_fingerprint) or _not_images(found):
            raise DataError(problem)
        test = found.subset(None, settings.test_examples).test
    except DataError as error:
        raise UsageError(f"--dataset: {str(error).removesuffix(DOWNLOAD)}") from error
    train, held = _parted(found.train, settings)
    fields = transformer_fields(settings)
    made = backbone.for_images(checkpoint, found, found.num_classes, settings.image_size, **fields)
    images = jnp.asarray(test.images)
    tests = {"test": images}
    for i, kind in enumerate(settings.corruptions):
        for severity in settings.severities:
            name = f"{kind} {severity}"
            tests[name] = shifted(stream(settings.seed, Stream.RUN_SHIFT, i), images, kind, severity, found.max_value)
    labels = jnp.asarray(test.labels)
    return Material(
        f"{found.name}: {_counts(train, held, test)}, {found.num_classes} classes", made, train, held,
        {name: (inputs, labels) for name, inputs in tests.items()}, tuple(tests)[1:], own.recorded(settings, found),
        found.notes,
    )  # fmt: skip


def _not_images(found: data.Dataset) -> str:
    """What is wrong where the inputs are not images of 8 bits; empty if they are."""
    if found.train.images.dtype == np.uint8 and found.train.images.ndim == 4:
        return ""
    return f"{found.name}: inputs are {found.train.images.dtype} {found.image_shape}, tna soup takes images of uint8 (N, H, W, C)"


def shifted(key: jax.Array, images: jax.Array, kind: str, severity: int, max_value: int) -> jax.Array:
    """Corrupted images, 1,000 at a time, which bounds the memory; each part has a key of its own."""
    parts = [images[first : first + 1000] for first in range(0, len(images), 1000)]
    made = [
        corruptions.corrupt(jax.random.fold_in(key, i), part, kind, severity, max_value) for i, part in enumerate(parts)
    ]
    return jnp.concatenate(made)


def _texts(settings: Any, checkpoint: str) -> Material:
    if settings.dataset in text.names():
        effects.refuse(settings, ("target",), f"for {settings.dataset}, a known set: it is for data of your own")
    try:
        task = text_sources.load(settings.dataset, data_dir=settings.data_dir, target=settings.target,
                                 recorded=settings.data_fingerprint)  # fmt: skip
    except DataError as error:
        raise UsageError(f"--dataset: {str(error).removesuffix(DOWNLOAD)}") from error
    _require_texts(settings, task)
    made = backbone.for_text(checkpoint, settings.length, task.num_classes, **transformer_fields(settings))
    words = tokenizer.load(made.folder)
    splits = {
        "train": (task.train, settings.train_examples),
        "held out": (task.validation, settings.held_out_examples),
        "test": (task.test, settings.test_examples),
    }
    found = {name: Split(*_encoded(words, split, count, settings.length)) for name, (split, count) in splits.items()}
    test = found["test"]
    return Material(
        f"{task.title}: {_counts(*found.values())}, {task.num_classes} classes", made, found["train"], found["held out"],
        {"test": (jnp.asarray(test.images), jnp.asarray(test.labels))}, (), recorded_texts(settings, task),
        task.notes,
    )  # fmt: skip


def _require_texts(settings: Any, task: text.TextTask) -> None:
    """Raises UsageError for more texts than there are; of those that are held out the usual number means all where there are fewer."""
    kinds = {"train_examples": ("training", task.train), "test_examples": ("test", task.test),
             "held_out_examples": ("validation", task.validation)}  # fmt: skip
    wrong = [
        f"--{field.replace('_', '-')} {count}: {task.title} has {len(split.labels)} {kind} texts"
        for field, (kind, split) in kinds.items()
        if effects.given(settings, (field,)) and (count := getattr(settings, field)) > len(split.labels)
    ]
    if wrong and not settings.resume:
        raise UsageError("; ".join(wrong))


def recorded_texts(settings: Any, task: text.TextTask) -> Any:
    """Returns the options as a run records them: the user's own texts by their absolute name and content."""
    if not task.source:
        return dataclasses.replace(settings, dataset_sha256=None, data_fingerprint=None)
    return dataclasses.replace(settings, dataset=task.source, data_fingerprint=task.fingerprint)


def _encoded(
    words: tokenizer.Tokenizer, split: text.TextSplit, count: int | None, length: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = permutation(len(split.labels), SUBSET_SEED)[:count]
    return tokens.encode_split(words, split.take(rows), length)


def _parted(split: Split, settings: Any) -> tuple[Split, Split]:
    """The training examples, and the held-out ones from the end of the same fixed order."""
    held = settings.held_out_examples
    used = len(split.labels) - held if settings.train_examples is None else settings.train_examples
    if used < 1 or used + held > len(split.labels):
        raise UsageError(
            f"--train-examples {used} and --held-out-examples {held} are more than the {len(split.labels)} there are"
        )
    rows = permutation(len(split.labels), SUBSET_SEED)
    first, last = rows[:used], rows[len(rows) - held :]
    return Split(split.images[first], split.labels[first]), Split(split.images[last], split.labels[last])


def _counts(train: Split, held: Split, test: Split) -> str:
    return f"{len(train.labels)} train + {len(held.labels)} held-out + {len(test.labels)} test examples"
