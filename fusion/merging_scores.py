"""Every merging method on fine-tuned bodies, its strength chosen on held-out examples: accuracies on all tasks.

A merged body is `base + strength * change`, and for every method with a strength the change does not depend on it: so a method
merges once, with strength 1, and the strengths are tried on the change.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fusion.finetuned_bodies import Bodies, Examples, Task, accuracy, features, inputs_of, seeded
from fusion.minilm import Encoder
from tna_jax import merging
from tna_jax.masks import Params

SUMS, MEANS = (0.2, 0.4, 0.7, 1.0), (0.5, 1.0, 1.5, 2.5)
"""Strengths that are tried: of methods that add task vectors, and of those that average them."""
FISHER_EXAMPLES, GRAM_EXAMPLES = 48, 96
ADAPTIVE: dict[str, Any] = {"steps": 20, "batch_size": 4, "learning_rate": 0.02}
"""Of AdaMerging; the paper takes 500 steps and more, at 0.001."""


class Setting(NamedTuple):
    """What one merge is of."""

    encoder: Encoder
    tasks: list[Task]
    bodies: Bodies
    seed: int


class Entry(NamedTuple):
    """A row of the table."""

    merge: Callable[[Setting], Params]
    """With strength 1, where there is one."""
    strengths: tuple[float, ...] = ()
    looks_at: str = "nothing"
    """What it needs beside the weights."""


def data_free(name: str, **options: Any) -> Callable[[Setting], Params]:
    """Returns the merge of all bodies by a method of `merging.METHODS`, with strength 1 where it has one."""
    method = merging.METHODS[name]
    if any(option.name == "strength" for option in method.options):
        options = {"strength": 1.0, **options}

    def merge(setting: Setting) -> Params:
        base = jax.tree.map(np.asarray, setting.encoder.body) if method.needs_base else None
        return merging.merge(name, setting.bodies.models, base, **options)

    return merge


def nested_slerp(setting: Setting) -> Params:
    """Merges the first two, the others, and both results, since SLERP takes two."""
    models = list(setting.bodies.models)
    while len(models) > 1:
        models = [merging.merge("slerp", models[i : i + 2]) for i in range(0, len(models), 2)]
    return models[0]


def unlabelled(setting: Setting, task: Task, count: int) -> Any:
    """Returns what a body takes for `count` training texts, a seeded choice."""
    tokens = task.train[0][seeded(len(task.train[1]), count)]
    return inputs_of(setting.encoder, tokens)


def fisher(setting: Setting) -> Params:
    """Fisher merging, on training examples without their labels."""
    parts = zip(setting.tasks, setting.bodies.models, setting.bodies.heads, strict=True)
    information = [
        merging.fisher_information(
            setting.encoder.network, body, unlabelled(setting, task, FISHER_EXAMPLES), state=head, batch_size=8
        )
        for task, body, head in parts
    ]
    return merging.fisher_merge(setting.bodies.models, information, floor=1e-12)


def regmean(setting: Setting) -> Params:
    """RegMean, on training examples without their labels."""
    parts = zip(setting.tasks, setting.bodies.models, setting.bodies.heads, strict=True)
    grams = [
        merging.gram_matrices(
            setting.encoder.network, body, unlabelled(setting, task, GRAM_EXAMPLES), state=head, batch_size=32
        )
        for task, body, head in parts
    ]
    return merging.regmean(setting.bodies.models, grams)


def adamerging(setting: Setting) -> Params:
    """AdaMerging, layer-wise, on held-out examples without their labels."""
    return merging.adamerging(
        setting.encoder.network,
        setting.bodies.models,
        setting.encoder.body,
        [inputs_of(setting.encoder, task.held_out.tokens) for task in setting.tasks],
        key=jax.random.key(setting.seed),
        states=setting.bodies.heads,
        steps=ADAPTIVE["steps"],
        batch_size=ADAPTIVE["batch_size"],
        optimizer=optax.adam(ADAPTIVE["learning_rate"]),
    ).params


ENTRIES: dict[str, Entry] = {
    "average": Entry(data_free("average")),
    "slerp": Entry(nested_slerp),
    "karcher": Entry(data_free("karcher")),
    "model_stock": Entry(data_free("model_stock")),
    "task_arithmetic": Entry(data_free("task_arithmetic"), SUMS),
    "ties": Entry(data_free("ties"), MEANS),
    "dare_linear": Entry(data_free("dare_linear"), SUMS),
    "dare_ties": Entry(data_free("dare_ties"), MEANS),
    "della": Entry(data_free("della"), MEANS),
    "della_linear": Entry(data_free("della_linear"), SUMS),
    "breadcrumbs": Entry(data_free("breadcrumbs"), SUMS),
    "sce": Entry(data_free("sce"), MEANS),
    "iso_c": Entry(data_free("iso_c"), MEANS),
    "wudi": Entry(data_free("wudi", solver="exact"), SUMS),
    "fisher": Entry(fisher, looks_at="inputs"),
    "regmean": Entry(regmean, looks_at="inputs"),
    "adamerging": Entry(adamerging, looks_at="inputs"),
}
"""All methods of `tna_jax.merging`. Options are the defaults, but for the strength, and WUDI's exact solver."""


def moved(base: Params, merged: Params, strength: float) -> Params:
    """Returns the base plus `strength` times what a merge changed."""
    return jax.tree.map(lambda b, m: jnp.asarray(b) + np.float32(strength) * (jnp.asarray(m) - b), base, merged)


def accuracies(encoder: Encoder, body: Params, heads: Sequence[Any], splits: Sequence[Examples]) -> list[float]:
    """Computes the accuracy of a body on each task under that task's head."""
    body = jax.device_put(jax.tree.map(jnp.asarray, body), jax.devices()[0])
    parts = zip(splits, heads, strict=True)
    return [accuracy(features(encoder, body, split), head, split.labels) for split, head in parts]


def choose(setting: Setting, merged: Params, strengths: Sequence[float]) -> dict[float, float]:
    """Computes the mean held-out accuracy over the tasks of each strength."""
    held_out = [task.held_out for task in setting.tasks]
    scores = {}
    for strength in strengths:
        body = moved(setting.encoder.body, merged, strength)
        scores[strength] = float(np.mean(accuracies(setting.encoder, body, setting.bodies.heads, held_out)))
    return scores
