"""How good bodies are: by fine-tuning them on a task, and by a linear probe on their frozen features."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble, finetuning, linear_probe, metrics
from tna_jax.ensemble import Trainer
from tna_jax.masks import Params
from tna_jax.prng import Stream, stream
from tna_jax.programs.cold.tasks import Task, drawn, shut, shut_mask
from tna_jax.programs.data.tokens import buckets
from tna_jax.programs.training.backbone import Backbone

BATCH = 250


class Body(NamedTuple):
    """A body to score."""

    seed: int
    params: Params
    """One model; its head is not used."""


class Scores(NamedTuple):
    """Of bodies (rows) on tasks (columns), on the test examples."""

    accuracy: np.ndarray
    loss: np.ndarray
    """Mean cross-entropy in nats, of a probe the squared error that it minimizes; not finite of what diverged."""


class Watch(NamedTuple):
    """Who is told how far an iteration is."""

    where: str
    """Which iteration."""
    phase: Callable[[str, int], None]
    """Told what begins and of how many units it is."""
    done: Callable[[int], None]
    """Told how many units more are done; raises where a stop was asked for."""

    def begin(self, what: str, units: int, of_what: str) -> None:
        """A part begins."""
        self.phase(f"{self.where}: {what} ({of_what})", units)

    def epoch(self, models: int, *_: Any) -> None:
        """One epoch of `models` models is done: for `on_epoch` of an ensemble."""
        self.done(models)


def tuned(
    backbone: Backbone,
    bodies: Sequence[Body],
    tasks: Sequence[Task],
    trainer: Trainer,
    settings: Any,
    watch: Watch,
) -> Scores:
    """Test accuracy and loss (bodies, tasks) after fine-tuning each body, with a fresh head and without anchors, on each task.

    A seed's heads, examples and orders are the same for every body, so that bodies are compared on equal terms. All trainings
    are one ensemble, in parts that fit the memory.
    """
    jobs = [(body, task, i) for body in bodies for i, task in enumerate(tasks)]
    found = []
    watch.begin("scores by fine-tuning", len(jobs) * settings.score_epochs, "models x epochs")
    for first in range(0, len(jobs), settings.at_once):
        part = jobs[first : first + settings.at_once]
        members = _members(backbone, part, trainer, settings)
        done = functools.partial(watch.epoch, len(part))
        members, _ = ensemble.train_ensemble(trainer, members, None, None, settings.score_epochs, on_epoch=done)
        params = jax.tree.map(np.asarray, members.params)
        found += [
            evaluate(backbone.network, ensemble.member(params, k), *task.test) for k, (_, task, _) in enumerate(part)
        ]
    return _table(found, len(bodies))


def _table(found: list[tuple[float, float]], bodies: int) -> Scores:
    return Scores(*(np.array(column).reshape(bodies, -1) for column in zip(*found, strict=True)))


def _members(backbone: Backbone, jobs: Any, trainer: Trainer, settings: Any) -> ensemble.Members:
    params, masks, orders, own = [], [], [], []
    for body, task, number in jobs:
        head = backbone.fresh(stream(body.seed, Stream.RUN_INIT, 1 + number))["head"]
        params.append(shut({**body.params, "head": head}, task.num_classes))
        masks.append(shut_mask(jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), params[-1]), task.num_classes))
        orders.append(stream(body.seed, Stream.RUN_ORDER, 1000 + number))
        own.append(drawn(stream(body.seed, Stream.RUN_SCORE, number), task, settings.score_examples))
    recipe = finetuning.FinetuneConfig(settings.learning_rate, settings.weight_decay)
    stack = functools.partial(jax.tree.map, lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]))
    return ensemble.init_ensemble(
        trainer,
        stack(*params),
        jnp.stack(orders),
        stack(*masks),
        finetuning.stack([recipe] * len(jobs)),
        member_data=stack(*own),
    )


def evaluate(
    network: Callable[[Params, jax.Array], jax.Array], params: Params, inputs: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Returns the share of correct examples of one model and its mean loss; every example counts once."""
    run, total = _counted(network), metrics.zero()
    for rows, weight in _batches(len(labels)):
        total = metrics.merge(total, run(params, inputs[rows], labels[rows], weight))
    return float(total.accuracy), float(total.loss)


def probed(backbone: Backbone, bodies: Sequence[Body], tasks: Sequence[Task], settings: Any, watch: Watch) -> Scores:
    """Test accuracy and squared error (bodies, tasks) of a linear probe on the features of each frozen body."""
    found = []
    watch.begin("scores by linear probe", len(bodies) * len(tasks), "bodies x tasks")
    for body in bodies:
        params = {"body": body.params["body"]}
        for number, task in enumerate(tasks):
            inputs, labels = drawn(stream(body.seed, Stream.RUN_SCORE, number), task, settings.probe_examples)
            train, test = (features(backbone, params, tokens) for tokens in (inputs, task.test[0]))
            fitted = _fit(jnp.asarray(train), jnp.asarray(labels), backbone.num_classes)
            tested = jnp.asarray(test), jnp.asarray(task.test[1])
            found.append((float(linear_probe.accuracy(fitted, *tested)), float(_squared_error(fitted, *tested))))
            watch.done(1)
    return _table(found, len(bodies))


@jax.jit
def _squared_error(probe: linear_probe.Probe, inputs: jax.Array, labels: jax.Array) -> jax.Array:
    goal = jax.nn.one_hot(labels, len(probe.bias), dtype=jnp.float32)
    return jnp.square(linear_probe.scores(probe, inputs) - goal).sum(-1).mean()


_fit = functools.partial(jax.jit, static_argnums=2)(linear_probe.fit)


def features(backbone: Backbone, params: Params, tokens: np.ndarray) -> np.ndarray:
    """(N, D) features of encoded texts (N, 2, L), computed by length, in two groups: short texts are not padded to L."""
    run, length = _featured(backbone), tokens.shape[2]
    made = np.zeros((len(tokens), backbone.module.width), np.float32)
    pad_id = backbone.module.pad_id
    for rows, part in buckets(tokens, -1 if pad_id is None else pad_id, sorted({max(length // 2, 1), length})):
        for chosen, weight in _batches(len(rows)):
            real = chosen[: int(weight.sum())]
            made[rows[real]] = np.asarray(run(params, part[chosen]))[: len(real)]
    return made


def _batches(count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (BATCH,) and their weights (BATCH,) float32: the last batch repeats its last row at weight 0."""
    for first in range(0, count, BATCH):
        rows = np.arange(first, first + BATCH)
        yield np.minimum(rows, count - 1), (rows < count).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _counted(network: Callable[[Params, jax.Array], jax.Array]) -> Callable[..., metrics.Metrics]:
    program: Callable[..., metrics.Metrics] = jax.jit(
        lambda params, x, labels, weight: metrics.classification(network(params, x), labels, weight)
    )
    return program


@functools.lru_cache(maxsize=8)
def _featured(backbone: Backbone) -> Callable[..., jax.Array]:
    program: Callable[..., jax.Array] = jax.jit(backbone.features)
    return program
