"""Objectives: each against NumPy, padding and ignored targets not counted; through training, paths, barriers, soups and federations."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow_but
from tna_jax import barrier, connectivity, evaluate_path, evaluate_paths, grid, line, metrics, objectives, stack
from tna_jax.averaging import greedy_recipe
from tna_jax.ensemble import Trainer, batch_indices, init_ensemble, member, train_ensemble
from tna_jax.networks import Stochastic
from tna_jax.objectives import CLASSIFICATION, Objective

RNG = np.random.default_rng(0)
TOKENS, VOCAB = RNG.integers(1, 7, (12, 6)), 7


def log_softmax(x):
    x = x.astype(np.float64)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def picked(logits, labels):
    return -np.take_along_axis(log_softmax(logits), labels[..., None], -1)[..., 0]


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def padded(outputs, targets):
    """Two examples of padding after them, whose outputs are not numbers."""
    more = np.concatenate([outputs, np.full((2, *outputs.shape[1:]), np.nan, np.float32)])
    weight = np.concatenate([np.ones(len(outputs), np.float32), np.zeros(2, np.float32)])
    return jnp.asarray(more), jnp.asarray(np.concatenate([targets, targets[:2]])), jnp.asarray(weight)


def tokens_case(objective, shape, ignore):
    outputs, targets = normal(*shape), RNG.integers(0, shape[-1], shape[:-1]).astype(np.int32)
    targets.reshape(-1)[::3] = ignore
    counted = targets != ignore
    losses = picked(outputs, np.where(counted, targets, 0))[counted]
    hits = (outputs.argmax(-1) == targets)[counted]
    expected = {"loss": losses.mean(), "accuracy": hits.mean()}
    if objective.name != "segmentation":
        expected["perplexity"] = np.exp(losses.mean())
    return objective, outputs, targets, counted.sum(), expected


def cases():
    yield tokens_case(objectives.next_token(), (4, 5, 7), -100)
    yield tokens_case(objectives.next_token(ignore=0), (4, 5, 7), 0)
    yield tokens_case(objectives.masked_lm(), (3, 6, 5), -100)
    yield tokens_case(objectives.segmentation(), (3, 4, 2, 3), 255)
    outputs, targets = normal(6, 2, 3), normal(6, 2, 3)
    error = (outputs - targets).reshape(6, -1)
    both = {"squared_error": (error**2).mean(), "absolute_error": np.abs(error).mean()}
    yield objectives.regression(), outputs, targets, 6, {"loss": both["squared_error"], **both}
    yield objectives.regression("absolute"), outputs, targets, 6, {"loss": both["absolute_error"], **both}
    outputs, targets = normal(5, 4), RNG.integers(0, 2, (5, 4))
    p, said = 1 / (1 + np.exp(-outputs)), outputs > 0
    yield (
        objectives.multi_label(),
        outputs,
        targets,
        5,
        {
            "loss": -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(),
            "accuracy": (said == targets).mean(),
            "exact_match": (said == targets).all(-1).mean(),
            "f1": 2 * (said & (targets == 1)).sum() / (said.sum() + targets.sum()),
        },
    )
    outputs, targets = normal(6, 3), RNG.integers(0, 3, 6)
    yield CLASSIFICATION, outputs, targets, 6, {
        "loss": picked(outputs, targets).mean(), "accuracy": (outputs.argmax(-1) == targets).mean()
    }  # fmt: skip


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case[0].name)
def test_an_objective_equals_numpy_and_padding_changes_nothing(case):
    objective, outputs, targets, count, expected = case
    measured = jax.jit(objective.sums)  # compiled at once, not operation by operation
    sums = measured(*padded(outputs, targets))
    assert float(sums.count) == count
    assert set(sums.names) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(sums.value(name), value, rtol=2e-6)
        assert sums.value(name).dtype == np.float32
    # in two parts the same
    both = [measured(*(jnp.asarray(x[part]) for x in padded(outputs, targets))) for part in (np.s_[:2], np.s_[2:])]
    merged = metrics.merge(metrics.merge(objective.zero(), both[0]), both[1])
    for name, value in expected.items():
        np.testing.assert_allclose(merged.value(name), value, rtol=2e-6)
    gradient = jax.jit(jax.grad(lambda z, *rest: objective.sums(z, *rest).loss_sum))(
        *padded(np.nan_to_num(outputs), targets)
    )
    assert not np.any(np.asarray(gradient[-2:])[np.isfinite(gradient[-2:])])


def test_masked_language_modeling_at_slots_equals_classification_of_them():
    outputs, targets, weight = normal(3, 2, 5), RNG.integers(0, 5, (3, 2)), jnp.array([[1.0, 0], [1, 1], [0, 0]])
    of = jnp.asarray(outputs), jnp.asarray(targets), weight
    ours, theirs = jax.jit(objectives.masked_lm().sums)(*of), jax.jit(metrics.classification)(*of)
    assert (float(ours.loss_sum), float(ours.count)) == (float(theirs.loss_sum), float(theirs.count))
    assert float(ours.accuracy) == float(theirs.accuracy)


def regression_net(params, inputs):
    return jnp.tanh(inputs["x"] @ params["hidden"]) @ params["out"] + inputs["bias"]


def regression_data(count=30):
    x = normal(count, 3)
    return {"x": x, "bias": normal(count, 1)}, np.sin(x.sum(1, keepdims=True))


def token_net(params, tokens):
    return jnp.cumsum(params["embedding"][tokens], axis=1) @ params["out"]


def two_models(trainer, init, data, epochs=3):
    start = jax.jit(jax.vmap(init))(jax.random.split(jax.random.key(0), 2))
    members = init_ensemble(trainer, start, jax.random.split(jax.random.key(1), 2))
    return train_ensemble(trainer, members, *data, epochs)


def init_regression(key):
    return {"hidden": jax.random.normal(key, (3, 8)) / 2, "out": jax.random.normal(key, (8, 1)) / 3}


def init_tokens(key):
    return {
        "embedding": jax.random.normal(key, (VOCAB, 8)) / 3,
        "out": jax.random.normal(jax.random.fold_in(key, 1), (8, VOCAB)) / 3,
    }


SETTINGS = {
    "regression": (regression_net, init_regression, objectives.regression(), regression_data()),
    "next-token": (token_net, init_tokens, objectives.next_token(), objectives.next_tokens(TOKENS, padding=6)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("placement", "name"), slow_but([("map", "regression")], itertools.product(["map", "loop"], SETTINGS))
)
def test_training_equals_a_plain_loop_and_ends_of_a_path_the_models_alone(name, placement):
    network, init, objective, data = SETTINGS[name]
    trainer = Trainer(network, optax.sgd(0.1), 8, objective=objective, placement=placement)
    members, history = two_models(trainer, init, data)
    assert np.all(history[-1].loss < history[0].loss)
    counted = len(data[1]) if name == "regression" else (data[1] != objectives.IGNORED_TOKEN).sum()
    assert history[0].count.tolist() == [counted] * 2

    @jax.jit
    def step(params, x, y, weight):
        def loss(p):
            sums = objective.sums(network(p, x), y, weight)
            return sums.loss_sum / sums.count

        return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))

    params = init(jax.random.split(jax.random.key(0), 2)[1])
    examples = len(jax.tree.leaves(data)[0])
    for epoch in range(3):
        for rows, weight in zip(
            *batch_indices(jax.random.split(jax.random.key(1), 2)[1], epoch, examples, 8), strict=True
        ):
            x, y = jax.tree.map(lambda leaf, rows=rows: jnp.asarray(leaf)[rows], data)

            params = step(params, x, y, weight)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), member(members.params, 1), params)

    a, b = (member(members.params, i) for i in (0, 1))
    path = evaluate_path(network, a, b, data, objective=objective, placement=placement, batch_size=10)
    assert path.alphas.shape == path.loss.shape == (11,)
    alone = connectivity.evaluate(
        network, members.params, {"": data}, objective=objective, placement=placement, batch_size=10
    )[""]
    for metric in alone.names:
        assert path.value(metric)[[0, -1]].tolist() == alone.value(metric).tolist()
    middle = objective.sums(
        network(line(a, b, 0.5), jax.tree.map(jnp.asarray, data[0])), jnp.asarray(data[1]), jnp.ones(examples)
    )
    np.testing.assert_allclose(path.loss[5], middle.loss, rtol=1e-5)
    gap = path.loss - np.linspace(path.loss[0], path.loss[-1], 11)
    np.testing.assert_allclose(barrier(path), gap.max(), atol=1e-6)
    np.testing.assert_allclose(barrier(path, larger_is_better=True), (-gap).max(), atol=1e-6)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_follows_the_weighted_mean_however_small_the_weights(accumulate):
    """Weights whose sum is below 1, in 4 steps of SGD against NumPy's mean."""
    x, y, w = normal(8, 3), normal(8, 1), RNG.uniform(0.1, 1, (8, 1)).astype(np.float32)
    objective = Objective("weighted", lambda out, t: jnp.square(out - t["y"]), counted=lambda t: t["weight"])
    expected = np.zeros((3, 1))
    for _ in range(4):
        expected -= 0.1 * 2 * (x.T @ (w * (x @ expected - y))) / w.sum()
    for scale in (1, 2.0**-10):
        trainer = Trainer(lambda p, x: x @ p["w"], optax.sgd(0.1), 8, objective=objective, accumulate=accumulate)
        members = init_ensemble(trainer, {"w": np.zeros((1, 3, 1), np.float32)}, jax.random.split(jax.random.key(0), 1))
        targets = {"y": y, "weight": np.float32(scale) * w}
        found, _ = train_ensemble(trainer, members, x, targets, 4)
        np.testing.assert_allclose(found.params["w"][0], expected, atol=1e-6)


@pytest.mark.slow
def test_accumulated_steps_count_every_token_once():
    network, init, objective, data = SETTINGS["next-token"]
    whole, parts = (
        two_models(Trainer(network, optax.sgd(0.1), 6, objective=objective, accumulate=n), init, data)[0]
        for n in (1, 3)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), whole.params, parts.params)


def test_two_models_by_one_call_equal_the_stacked_form_and_the_old_call_warns():
    network, init, objective, data = SETTINGS["regression"]
    models = [init(jax.random.key(i)) for i in (0, 1)]
    two = evaluate_path(network, *models, {"train": data}, alphas=5, objective=objective)["train"]
    many = evaluate_paths(network, stack(models), [(0, 1)], 5, {"train": data}, objective=objective)["train"]
    assert two.loss.tolist() == many.loss[0].tolist()
    with pytest.warns(DeprecationWarning, match="evaluate_paths"):
        old = evaluate_path(network, stack(models), [(0, 1)], grid(5), {"train": data}, objective=objective)["train"]
    with pytest.warns(DeprecationWarning, match="evaluate_paths"):
        named = evaluate_path(
            network, stack(models), np.array([[0, 1]]), alphas=grid(5), data={"train": data}, objective=objective
        )["train"]
    assert old.loss.tolist() == named.loss.tolist() == many.loss.tolist()
    with pytest.raises(ValueError, match="hidden"):
        evaluate_path(network, models[0], {"hidden": models[1]["hidden"][:2], "out": models[1]["out"]}, data)


@pytest.mark.slow
def test_a_key_for_each_step_reaches_networks_that_draw():
    def train(params, inputs, key):
        keep = jax.random.bernoulli(key, 0.5, inputs.shape)
        return jnp.where(keep, inputs, jnp.float32(0)) @ params["w"]

    network = Stochastic(train, lambda params, inputs: inputs @ params["w"])
    data = normal(16, 3), RNG.integers(0, 2, 16).astype(np.int32)

    def init(key):
        return {"w": jax.random.normal(key, (3, 2))}

    runs = [
        two_models(Trainer(net, optax.sgd(0.1), 8, placement=placement), init, data)[0].params["w"]
        for net, placement in ((network, "map"), (network, "loop"), (lambda p, x: x @ p["w"], "map"))
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


@pytest.mark.parametrize(
    ("objective", "outputs", "targets", "message"),
    [
        (objectives.regression(), (4, 2), (4,), "one shape"),
        (objectives.next_token(), (4, 3), (4, 3), "integer targets of the shape"),
        (objectives.multi_label(), (4, 3), (4, 2), "one shape"),
        (Objective("mine", lambda z, y: z), (4, 2), (4, 2), "losses of mine"),
    ],
)
def test_an_objective_that_does_not_fit_is_refused_by_name(objective, outputs, targets, message):
    targets = jnp.zeros(targets, jnp.int32 if objective.name == "next-token" else jnp.float32)
    with pytest.raises(ValueError, match=message):
        objective.sums(jnp.zeros(outputs), targets, jnp.ones(4))
    with pytest.raises(ValueError, match="no metric 'nothing'"):
        objective.metric("nothing")


def test_equal_arguments_give_one_objective():
    for make in objectives.BY_NAME.values():
        assert make() is make()
    assert hash(dataclasses.replace(CLASSIFICATION)) == hash(CLASSIFICATION)


def test_a_greedy_soup_of_losses_keeps_the_smaller():
    losses = [3.0, 1.0, 2.0]
    recipe = greedy_recipe(losses, lambda w: float(w @ losses) / w.sum(), larger_is_better=False)
    same = greedy_recipe([-x for x in losses], lambda w: -float(w @ losses) / w.sum())
    assert recipe.weights.tolist() == same.weights.tolist() == [0, 1, 0]
    assert recipe.score == -same.score == 1.0


def test_lists_and_integers_that_jax_would_cut_are_refused():
    inputs, labels = np.arange(4)[:, None], np.arange(4) % 2
    with pytest.raises(ValueError, match="lists of numbers are trees here"):
        objectives.check_examples(objectives.CLASSIFICATION, inputs, labels.tolist())
    with pytest.raises(ValueError, match=r"cut these integers to 32 bits: inputs \(int64, up to 1099511627779"):
        objectives.check_examples(objectives.CLASSIFICATION, inputs + 2**40, labels)


def test_what_are_no_sequences_of_tokens_is_refused():
    for tokens in (np.zeros((3, 1), int), np.zeros((3, 4)), np.zeros(5, int)):
        with pytest.raises(ValueError, match="two or more in a sequence"):
            objectives.next_tokens(tokens)
