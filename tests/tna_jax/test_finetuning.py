"""Recipes at once are recipes one by one; accumulated gradients are the large batch's; own data; anchors under AdamW."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tna_jax import ensemble, finetuning, masks, metrics, models
from tna_jax.ensemble import Trainer
from tna_jax.finetuning import FinetuneConfig

MODEL = models.create("mlp", num_classes=4, depth=2, width=24)
N = 40
BODY = "Dense_[01]"
"""The layers that are anchored: all but the last."""
PLAN = [
    FinetuneConfig(3e-3, 0.0, 0.0, 0.0, seed=0),
    FinetuneConfig(1e-3, 0.5, 0.2, 0.5, seed=1),
    FinetuneConfig(5e-3, 0.1, 0.0, 1.0, seed=2),
]


@pytest.fixture(scope="module", autouse=True)
def optax_arithmetic():
    """Adam and the schedules of optax mix integers and floats."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def network(params, x):
    return MODEL.apply({"params": params}, x.astype(jnp.float32) / np.float32(127.5) - 1)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    return jnp.asarray(rng.integers(0, 256, (N, 8, 8, 3)), jnp.uint8), jnp.asarray(rng.integers(0, 4, N), jnp.int32)


def stacked(tree, count: int):
    return jax.tree.map(lambda leaf: np.stack([leaf] * count), jax.device_get(tree))


def start(trainer: Trainer, plan, ratio: float = 0.4, own=()):
    """All from one initial value under one mask of the body."""
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    mask = masks.bernoulli(jax.random.key(1), params, ratio, BODY)
    orders = jnp.stack([jax.random.key(100 + recipe.seed) for recipe in plan])
    hyper = finetuning.stack(plan)
    return ensemble.init_ensemble(
        trainer, stacked(params, len(plan)), orders, stacked(mask, len(plan)), hyper, member_data=own
    )


def made(placement: str = "map", **fields) -> Trainer:
    prepare = {"prepare": finetuning.augmented, "loss": finetuning.smoothed}
    return Trainer(network, finetuning.adamw(10, 2), 8, placement, **{**prepare, **fields})


def same_bits(a, b) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in pairs)


@pytest.fixture(scope="module")
def at_once(data):
    trainer = made()
    return ensemble.train_ensemble(trainer, start(trainer, PLAN), *data, 2)[0]


@pytest.mark.slow
def test_recipes_at_once_are_recipes_one_by_one(data, at_once):
    trainer = made()
    for i, recipe in enumerate(PLAN):
        one, _ = ensemble.train_ensemble(trainer, start(trainer, [recipe]), *data, 2)
        assert same_bits(ensemble.member(at_once.params, i), ensemble.member(one.params, 0))
    assert not same_bits(ensemble.member(at_once.params, 0), ensemble.member(at_once.params, 1))


@pytest.mark.slow
def test_each_value_of_a_recipe_has_an_effect(data, at_once):
    """The control of the test above: a recipe that differs in one value trains to other numbers."""
    trainer, base = made(), PLAN[1]
    changes = [
        {"learning_rate": 2e-3}, {"weight_decay": 0.0}, {"label_smoothing": 0.0}, {"augmentation": 0.0}, {"seed": 9},
    ]  # fmt: skip
    plan = [FinetuneConfig(**{**base.__dict__, **change}) for change in changes]
    found = ensemble.train_ensemble(trainer, start(trainer, plan), *data, 1)[0]
    (same,) = (ensemble.train_ensemble(trainer, start(trainer, [base]), *data, 1)[0],)
    for i in range(len(plan)):
        assert not same_bits(ensemble.member(found.params, i), ensemble.member(same.params, 0)), changes[i]


@pytest.mark.slow
def test_anchors_keep_their_bits_and_the_rest_moves(at_once):
    begun = start(made(), PLAN)
    for own, before, mask in zip(*map(jax.tree.leaves, (at_once.params, begun.params, begun.mask)), strict=True):
        own, before, free = np.asarray(own), np.asarray(before), np.asarray(mask)
        assert np.array_equal(own.view(np.uint32)[~free], before.view(np.uint32)[~free])
    share = float(masks.anchored_ratio({name: begun.mask[name] for name in ("Dense_0", "Dense_1")}))
    assert share == pytest.approx(0.4, abs=0.03)
    moved = np.mean(
        [
            np.mean(np.asarray(a != b))
            for a, b in zip(*map(jax.tree.leaves, (at_once.params, begun.params)), strict=True)
        ]
    )
    assert moved > 0.4


@pytest.mark.slow
def test_an_optimizer_step_is_that_of_optax(data):
    """One step of a recipe against optax.adamw with the same numbers, decay on matrices only, no clipping."""
    recipe = FinetuneConfig(1e-3, 30.0)
    trainer = Trainer(network, finetuning.adamw(10, 0, None), N, "map", loss=finetuning.smoothed)
    begun = start(trainer, [recipe], ratio=0.0)
    begun = begun._replace(
        params=jax.tree.map(lambda leaf: leaf + 0.1, begun.params)
    )  # biases begin at 0, which cannot decay
    found = ensemble.train_ensemble(trainer, begun, *data, 1)[0]
    params = ensemble.member(begun.params, 0)
    loss = lambda p: jnp.mean(metrics.cross_entropy(network(p, data[0]), data[1]))  # noqa: E731
    optimizer = optax.adamw(1e-3, weight_decay=30.0, mask=lambda p: jax.tree.map(lambda leaf: leaf.ndim > 1, p))
    updates, _ = optimizer.update(jax.jit(jax.grad(loss))(params), optimizer.init(params), params)
    expected = optax.apply_updates(params, updates)
    for a, b in zip(jax.tree.leaves(ensemble.member(found.params, 0)), jax.tree.leaves(expected), strict=True):
        assert np.allclose(
            a, b, atol=2e-4
        )  # Adam's first step is the gradient's sign: tiny gradients may round to the other


@pytest.mark.slow
@pytest.mark.parametrize("parts", [2, 16])
def test_accumulated_gradients_are_those_of_the_large_batch(data, parts):
    sgd = lambda hyper: optax.sgd(hyper["learning_rate"] * 100, momentum=0.9)  # noqa: E731
    found = []
    for accumulate in (1, parts):
        trainer = Trainer(
            network, sgd, 16, "map", prepare=finetuning.augmented, loss=finetuning.smoothed, accumulate=accumulate
        )  # fmt: skip
        members, history = ensemble.train_ensemble(trainer, start(trainer, PLAN), *data, 2)  # the last batch is padded
        found.append((members.params, history[-1]))
    for a, b in zip(*(jax.tree.leaves(params) for params, _ in found), strict=True):
        assert np.allclose(a, b, atol=2e-5)
    assert np.allclose(found[0][1].loss_sum, found[1][1].loss_sum, rtol=1e-5)
    assert np.array_equal(found[0][1].count, found[1][1].count)


def test_what_cannot_be_accumulated_is_refused():
    with pytest.raises(ValueError, match="8 cannot be cut into 3 equal parts"):
        made(accumulate=3)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["loop", "vmap"])
def test_members_with_data_of_their_own_train_as_alone(data, placement):
    images, labels = data
    rows = np.stack([np.arange(20), np.arange(20, 40), np.arange(10, 30)])
    trainer = made(placement)
    own = (images[rows], labels[rows])
    together = ensemble.train_ensemble(trainer, start(trainer, PLAN, own=own), None, None, 1)[0]
    for i, recipe in enumerate(PLAN):
        alone = made("map")
        one = ensemble.train_ensemble(alone, start(alone, [recipe]), images[rows[i]], labels[rows[i]], 1)[0]
        for a, b in zip(
            *(jax.tree.leaves(p) for p in (ensemble.member(together.params, i), ensemble.member(one.params, 0))),
            strict=True,
        ):
            assert np.allclose(a, b, atol=1e-5 if placement == "loop" else 2e-4)
    with pytest.raises(ValueError, match="own data"):
        ensemble.train_ensemble(trainer, start(trainer, PLAN, own=own), images, labels, 1)


@pytest.mark.slow
def test_augmentation_at_strength_0_is_the_identity_and_stays_in_range(data):
    images = data[0]
    key = jax.random.key(0)
    assert np.array_equal(finetuning.augment(key, images, 0.0), images)
    real = images.astype(jnp.float32) / 3
    assert np.array_equal(finetuning.augment(key, real, 0.0), real)
    strong = np.asarray(finetuning.augment(key, jnp.tile(images, (20, 1, 1, 1)), 1.0))
    assert strong.dtype == np.uint8
    assert not np.array_equal(strong[:N], images)


def test_smoothing_is_the_mix_of_both_losses():
    logits, labels = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), np.array([0, 1, 2, 3, 0])
    target = np.eye(4)[labels] * 0.9 + 0.1 / 4
    expected = -(target * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1)
    found = jax.jit(finetuning.smoothed)(logits, labels, {"label_smoothing": np.float32(0.1)})
    assert np.asarray(found) == pytest.approx(expected, rel=1e-5)


def test_the_schedule_rises_and_falls():
    shape = finetuning.warmup_cosine(100, 10)
    assert [float(shape(step)) for step in (0, 5, 10, 55, 100)] == pytest.approx([0, 0.5, 1, 0.5, 0], abs=1e-6)
    with pytest.raises(ValueError, match="shorter than the 5 steps"):
        finetuning.warmup_cosine(5, 5)


def test_a_grid_takes_values_in_turn_and_bad_values_are_named():
    made = finetuning.grid([1e-3, 2e-3], [0.0, 0.1], count=5)
    assert [(r.learning_rate, r.weight_decay, r.seed) for r in made] == [
        (1e-3, 0.0, 0), (2e-3, 0.0, 1), (1e-3, 0.1, 2), (2e-3, 0.1, 3), (1e-3, 0.0, 4),
    ]  # fmt: skip
    assert len(finetuning.grid([1, 2, 3], [0.0], [0.0, 0.1])) == 6
    for lists, count in (([[]], None), ([[], [0.1]], 2), ([[0.1]], 0)):
        with pytest.raises(ValueError, match="one or more values in each list, and one or more configurations"):
            finetuning.grid(*lists, count=count)
    with pytest.raises(ValueError, match="learning_rate -1, label_smoothing 1.5"):
        finetuning.stack([FinetuneConfig(-1, label_smoothing=1.5)])
