"""The search of `tna fuse --method`: which options are tried, what chooses among them, and what stays as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow_but
from tests.tna_jax.programs.fuse.populations import STATEFUL, linear, population, scorer
from tna_jax import averaging, merging, objectives, repair
from tna_jax.io.errors import UsageError
from tna_jax.merging.methods import METHODS
from tna_jax.programs.cli.choices import DataAwareMethod, FusingMethod
from tna_jax.programs.fuse import data_aware, merge_plan, merges, methods
from tna_jax.programs.fuse.base import Base
from tna_jax.programs.population import anchors

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
ZERO = {"bias": np.zeros(4, np.float32), "kernel": np.zeros((3, 4), np.float32)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {"bias": rng.normal(size=4).astype(np.float32), "kernel": rng.normal(size=(3, 4)).astype(np.float32)}


MODELS = [draw(i) for i in range(3)]
SUM = jax.tree.map(lambda *x: sum(x), *MODELS)
LABELS = linear(SUM, X).argmax(-1).astype(np.int32)


def search(trees, tried, base=None, labels=LABELS, inputs=None, weights=None):
    made = population(trees)
    plan = merge_plan.Plan(tried, None if base is None else Base(base, "a base"), inputs, "tensor", weights)
    return merges.search(plan, scorer(made), made.params, made.state, (jnp.asarray(X), jnp.asarray(labels)))


def test_every_method_has_a_name_and_the_rest_is_that_of_merge():
    assert set(methods.ALL) == set(FusingMethod.__args__) and set(methods.DATA_AWARE) == set(DataAwareMethod.__args__)
    assert set(methods.DATA_AWARE) == set(data_aware.MERGERS) == set(data_aware.CHECKS)


@pytest.mark.parametrize("name", list(methods.ALL))
@pytest.mark.parametrize("models", [2, 5])
def test_default_grids_hold_the_average_and_the_default(name, models):
    method = methods.ALL[name]
    if method.max_models == 2 and models > 2:
        return
    (tried,) = methods.grids([name], None, models).values()
    assert tried and len({repr(options) for options in tried}) == len(tried)
    for option in method.options:
        values = {options[option.name] for options in tried}
        if option.name == "strength":
            assert (1.0 if method.normalized else 1 / models) in values
        else:
            assert option.default in values


def test_options_enter_the_methods_that_have_them():
    tried = methods.grids(["average", "ties", "task_arithmetic"], ("density=0.2,0.5", "strength=[1]", "elect=count"), 3)
    assert tried["average"] == [{}] and tried["task_arithmetic"] == [{"strength": 1.0}]
    assert tried["ties"] == [{"density": d, "strength": 1.0, "elect": "count"} for d in (0.2, 0.5)]
    assert methods.shown(tried["ties"][0], tried["ties"], ("elect",)) == {"density": 0.2, "elect": "count"}


@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        (["ties"], ("densty=0.2",), "--method-options densty: ties has no such option; ties has density, strength, elect"),
        (["ties", "average"], ("gamma=1",), "ties and average have no such option"),
        (["ties"], ("density=0.2,2",), r"--method ties: density must be in \(0, 1\], got 2"),
        (["ties"], ("density=a",), "got 'a'"),
        (["regmean"], ("scale=-1",), r"--method regmean: scale must be in \[0, 1\], got -1"),
        (["adamerging"], ("steps=0",), "steps must be a whole number in"),
        (["slerp"], None, "--method slerp merges 2 models, got 3"),
        (["breadcrumbs"], ("density=1", "gamma=0.5"), r"density \+ gamma must be at most 1"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_named(names, words, expected):
    with pytest.raises(UsageError, match=expected):
        methods.grids(names, words, 3)


def test_held_out_examples_choose_and_of_equal_accuracies_the_lower_loss():
    """The base is 0, so a strength scales the logits; the labels are those of the sum."""
    strengths = [{"strength": value} for value in (-1.0, 0.5, 2.0, 1.0)]
    (found,) = search(MODELS, {"task_arithmetic": strengths}, ZERO)
    assert found.options == {"strength": 2.0} and found.score["accuracy"] == 1
    assert [candidate["options"] for candidate in found.candidates] == strengths
    assert found.candidates[0]["accuracy"] < 1 and found.candidates[1]["loss"] > found.score["loss"]
    (other,) = search(MODELS, {"task_arithmetic": strengths}, ZERO, (linear(SUM, X).argmin(-1)).astype(np.int32))
    assert other.options == {"strength": -1.0}


def test_what_gives_no_model_is_passed_over_and_said():
    (found,) = search(MODELS, {"task_arithmetic": [{"strength": 1e39}, {"strength": 1.0}]}, ZERO)
    assert found.options == {"strength": 1.0} and "cannot hold" in found.candidates[0]["error"]
    with pytest.raises(UsageError, match="--method task_arithmetic: no options give a model: .*cannot hold"):
        search(MODELS, {"task_arithmetic": [{"strength": 1e39}]}, ZERO)


@pytest.mark.parametrize(
    "name", slow_but(["ties", "fisher", "regmean"], [name for name in methods.ALL if name != "adamerging"])
)
def test_what_all_models_share_stays_and_equal_models_give_that_model(name):
    trees = MODELS[:2] if methods.ALL[name].max_models == 2 else MODELS
    base = draw(9)
    shared = RNG.random((3, 4)) < 0.5
    trees = [{**tree, "kernel": np.where(shared, base["kernel"], tree["kernel"])} for tree in trees]
    needs = base if methods.ALL[name].needs_base else None
    tried = methods.grids([name], None, len(trees))
    (found,) = search(trees, tried, needs, inputs=jnp.asarray(X))
    assert found.equal == shared.sum()
    assert np.asarray(found.model.params["kernel"])[shared].tobytes() == base["kernel"][shared].tobytes()
    assert not np.array_equal(found.model.params["kernel"], trees[0]["kernel"])
    (same,) = search([trees[0]] * len(trees), tried, inputs=jnp.asarray(X), base=trees[0] if needs else None)
    for leaf, expected in zip(jax.tree.leaves(same.model.params), jax.tree.leaves(trees[0]), strict=True):
        assert np.asarray(leaf).tobytes() == expected.tobytes()


def test_an_anchor_that_moved_would_be_seen():
    shared = anchors.shared([MODELS[0], {**MODELS[1], "kernel": MODELS[0]["kernel"]}])
    assert shared.equal == 12
    wrong = {**MODELS[0], "kernel": MODELS[0]["kernel"] + np.float32(1e-7) * np.eye(3, 4, dtype=np.float32)}
    anchors.verify("ties", {**MODELS[0], "bias": MODELS[1]["bias"]}, MODELS[0], shared)
    with pytest.raises(RuntimeError, match=r"ties moved entries that all models share: kernel \([123]\)"):
        anchors.verify("ties", wrong, MODELS[0], shared)


def test_data_aware_merges_are_those_of_the_library():
    inputs = jnp.asarray(X[:10])
    tried = {"fisher": [{"floor": 0.0}], "regmean": [{"scale": 0.9}]}
    found = {merge.method: merge for merge in search(MODELS, tried, inputs=inputs)}
    fishers = [merging.fisher_information(linear, model, inputs) for model in MODELS]
    grams = [merging.gram_matrices(linear, model, inputs) for model in MODELS]
    for name, expected in (
        ("fisher", merging.fisher_merge(MODELS, fishers)),
        ("regmean", merging.regmean(MODELS, grams)),
    ):
        for leaf, other in zip(*map(jax.tree.leaves, (found[name].model.params, expected)), strict=True):
            assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
    assert found["regmean"].facts == {"dense_layers": ["kernel"]}


@pytest.mark.slow
def test_adamerging_learns_coefficients_and_leaves_anchors():
    trees = [{**tree, "bias": ZERO["bias"]} for tree in MODELS]
    tried = methods.grids(["adamerging"], ("steps=30", "learning_rate=0.05"), 3)
    with jax.numpy_rank_promotion("allow"):
        (found,) = search(trees, tried, ZERO, inputs=jnp.asarray(X))
    assert {candidate["options"]["coefficients"] for candidate in found.candidates} == {"model", "layer"}
    assert found.facts["entropy_after"] < found.facts["entropy_before"] - 0.01 and found.equal == 4
    assert not np.asarray(found.model.params["bias"]).any()


def test_running_statistics_are_estimated_again_for_a_merge():
    made = population(MODELS, STATEFUL, {"mean": np.zeros((3, 3), np.float32)})
    finished = scorer(made, jnp.asarray(X)).finish(SUM)
    expected = repair.reset_batch_stats(STATEFUL, SUM, {"mean": jnp.zeros(3)}, jnp.asarray(X))
    np.testing.assert_array_equal(finished.state["mean"], expected["mean"])
    assert np.abs(finished.state["mean"]).max() > 0.1


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("fisher", {"objective": objectives.regression()}, "--method fisher takes the expectation over class labels"),
        (
            "adamerging",
            {"objective": objectives.regression()},
            "--method adamerging makes predictions of classes certain",
        ),
        ("adamerging", {"network": STATEFUL}, "--method adamerging: a linear network has running statistics"),
        ("regmean", {"exact": lambda params, x: x * params["bias"][None, :3]}, "--method regmean merges dense layers"),
    ],
)
def test_methods_that_do_not_fit_are_refused_by_name(name, fields, expected):
    with pytest.raises(UsageError, match=expected):
        data_aware.check(["ties", name], population(MODELS)._replace(**fields), X[:2])
    data_aware.check(["ties", *METHODS], population(MODELS)._replace(**fields), X[:2])


def test_weights_enter_the_average_and_the_methods():
    inputs, weights = jnp.asarray(X[:10]), (3.0, 0.0, 1.0)
    tried = {"average": [{}], "task_arithmetic": [{"strength": 0.5}], "regmean": [{"scale": 0.9}]}
    found = {merge.method: merge.model.params for merge in search(MODELS, tried, ZERO, inputs=inputs, weights=weights)}
    grams = [merging.gram_matrices(linear, model, inputs) for model in MODELS]
    expected = {
        "average": averaging.weighted_average(jax.tree.map(lambda *x: np.stack(x), *MODELS), weights),
        "task_arithmetic": jax.tree.map(lambda a, b, c: 1.5 * a + 0.5 * c, *MODELS),
        "regmean": merging.regmean(MODELS, grams, weights),
    }
    for name, params in expected.items():
        for leaf, other in zip(*map(jax.tree.leaves, (found[name], params)), strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in methods.ALL if name not in ("adamerging", "fisher", "regmean")])
def test_every_method_of_one_tensor_takes_weights(name):
    trees = MODELS[:2] if methods.ALL[name].max_models == 2 else MODELS
    base = draw(9) if methods.ALL[name].needs_base else None
    weights = (5.0, 1.0, 1.0)[: len(trees)]
    options = {"solver": "exact"} if name == "wudi" else {}  # 300 steps of 1e-5 do not reach anything
    equal, weighted = (merging.merge(name, trees, base, each, **options)["kernel"] for each in (None, weights))
    assert np.abs(weighted - equal).max() > 1e-3


def test_default_strengths_are_around_the_weighted_average():
    (tried,) = methods.grids(["task_arithmetic"], None, 3, (1.0, 2.0, 1.0)).values()
    assert 0.25 in [options["strength"] for options in tried]
