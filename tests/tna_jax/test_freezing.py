"""Frozen leaves: anchored as a whole, and without gradient and optimizer state."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.parameters import slow
from tests.tna_jax.test_ensemble import same_bits
from tna_jax import ensemble, masks
from tna_jax.ensemble import Trainer
from tna_jax.masks import AnchorRecipe
from tna_jax.masks.freezing import with_frozen, without_frozen

PARAMS = {
    "words": {"embedding": np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)},
    "layer": {"kernel": np.linspace(-1, 2, 9, dtype=np.float32).reshape(3, 3), "bias": np.float32([-0.0, 1, 2])},
    "head": {"kernel": np.linspace(0, 1, 6, dtype=np.float32).reshape(3, 2)},
}


def network(params, ids):
    hidden = jnp.tanh(params["words"]["embedding"][ids] @ params["layer"]["kernel"] + params["layer"]["bias"][None])
    return hidden @ params["head"]["kernel"]


OPTIMIZER = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1, weight_decay=0.5))
IDS = np.arange(8, dtype=np.int32) % 4
LABELS = (IDS > 1).astype(np.int32)
FROZEN = "words|bias"


def by_ensemble(trainer, mask):
    params, masks = jax.tree.map(lambda x: np.stack([x, x]), (PARAMS, mask))
    members = ensemble.init_ensemble(trainer, params, jax.random.split(jax.random.key(0), 2), masks)
    members = ensemble.train_ensemble(trainer, members, IDS, LABELS, 2)[0]
    return jax.tree.map(lambda x: np.asarray(x)[1], (members.params, members.opt_state))


def by_steps(trainer, mask):
    def steps(params):
        member = ensemble.Members(params, mask, trainer.init_optimizer(params, mask, {}), jax.random.key(0), {})
        for _ in range(2):
            member, _ = ensemble.train_step(trainer, member, IDS, LABELS, np.ones(8, np.float32), padded=False)
        return member.params, member.opt_state

    return jax.tree.map(np.asarray, jax.jit(steps)(jax.tree.map(jnp.asarray, PARAMS)))


@pytest.mark.parametrize(
    ("train", "accumulate"), [(by_steps, 1), *slow((by_steps, 2), (by_ensemble, 1), (by_ensemble, 2))]
)
def test_frozen_leaves_train_to_the_numbers_of_a_mask_without_moments(train, accumulate):
    trainer = Trainer(network, OPTIMIZER, 8, "map", accumulate=accumulate)
    mask = AnchorRecipe(ratio=0.3, seed=1, where="layer", freeze=FROZEN).draw(PARAMS)
    with jax.numpy_dtype_promotion("standard"):
        whole, moments = train(trainer, mask)
        frozen, fewer = train(dataclasses.replace(trainer, freeze=FROZEN), mask)
    for leaf, other in zip(*map(jax.tree.leaves, (frozen, whole)), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)
    for params in (frozen, whole):
        assert same_bits(params["words"]["embedding"], PARAMS["words"]["embedding"])
        assert same_bits(params["layer"]["bias"], PARAMS["layer"]["bias"])  # of -0.0 too
        assert not same_bits(params["head"]["kernel"], PARAMS["head"]["kernel"])
    shapes = [{np.shape(leaf) for leaf in jax.tree.leaves(state)} for state in (fewer, moments)]
    assert (4, 3) in shapes[1] and (4, 3) not in shapes[0]


def test_no_gradient_of_a_frozen_leaf_is_computed():
    """The backward pass of what lies below the lowest trained layer is not in the program: no scatter into the embedding."""
    trainer = Trainer(network, optax.sgd(0.1), 4, freeze="words")
    mask = masks.freeze(jax.tree.map(lambda p: np.ones(p.shape, bool), PARAMS), "words")
    texts = []
    for one in (trainer, dataclasses.replace(trainer, freeze=None)):
        params = jax.tree.map(jnp.asarray, PARAMS)
        member = ensemble.Members(params, mask, one.init_optimizer(params, mask, {}), jax.random.key(0), {})
        step = lambda *batch, one=one, member=member: ensemble.train_step(one, member, *batch)[0].params  # noqa: E731
        texts.append(str(jax.make_jaxpr(step)(np.zeros(4, np.int32), np.zeros(4, np.int32), np.ones(4, np.float32))))
    assert "scatter-add" in texts[1] and "scatter-add" not in texts[0]


def test_a_recipe_anchors_frozen_leaves_whatever_the_ratio_and_leaves_the_others_as_they_were():
    plain, frozen = (
        AnchorRecipe(ratio=0.3, where="layer", freeze=freeze).draw(PARAMS) for freeze in (None, "^head|bias")
    )
    assert not frozen["head"]["kernel"].any() and not frozen["layer"]["bias"].any()
    assert (frozen["layer"]["kernel"] == plain["layer"]["kernel"]).all() and frozen["words"]["embedding"].all()
    soft = AnchorRecipe(ratio=0.3, soft=0.5, freeze="^head").draw(PARAMS)
    assert not soft["head"]["kernel"].any() and (soft["words"]["embedding"] >= 0.5).all()


def test_a_recipe_keeps_what_is_frozen_in_its_file_and_older_files_have_nothing_frozen():
    recipe = AnchorRecipe(freeze="words")
    assert AnchorRecipe.from_json(recipe.to_json()) == recipe
    assert "freeze" not in AnchorRecipe().to_json()
    with pytest.raises(TypeError, match="freeze is a function"):
        AnchorRecipe(freeze=str.isalpha).to_json()


def test_a_pattern_that_freezes_nothing_is_refused_with_the_paths():
    with pytest.raises(ValueError, match="freeze='wrods' selects no leaf; the paths are: head/kernel, layer/bias"):
        AnchorRecipe(freeze="wrods").draw(PARAMS)
    with pytest.raises(ValueError, match="freeze='\\(' is not a regular expression"):
        AnchorRecipe(freeze="(")


def test_a_tree_without_its_frozen_leaves_is_put_together_again():
    assert len(jax.tree.leaves(without_frozen(PARAMS, "bias|embedding"))) == 2
    other = jax.tree.map(lambda x: x + 1, PARAMS)
    mixed = with_frozen(without_frozen(other, "bias|embedding"), PARAMS, "bias|embedding")
    assert same_bits(mixed["layer"]["bias"], PARAMS["layer"]["bias"])
    assert same_bits(mixed["layer"]["kernel"], other["layer"]["kernel"])
