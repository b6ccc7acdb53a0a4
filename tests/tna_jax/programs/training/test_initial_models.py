"""The models of a run before training: shared anchors whatever their values, soft anchors, small starts."""

import jax
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import models, networks
from tna_jax.io.errors import UsageError, collect_errors
from tna_jax.programs.cli import ranges
from tna_jax.programs.cli.options import AnchorOptions
from tna_jax.programs.training.anchors import recipe
from tna_jax.programs.training.initial_models import ModelSpec, build

INIT = networks.linen(models.create("mlp", num_classes=3, depth=1, width=20), (30,))[1]
PAIR = [ModelSpec(0, 0.5, "tna", 0, 0), ModelSpec(0, 0.5, "tna", 1, 1)]
PLAIN = [ModelSpec(0, 0.0, "tna", 0, 0), ModelSpec(0, 0.0, "tna", 1, 1)]


def kernels(start):
    return start.params["Dense_0"]["kernel"], start.mask["Dense_0"]["kernel"]


@pytest.mark.parametrize(("options", "anchors", "trainable"), [
    *slow(({}, 1.0, 1.0), ({"anchor_scale": 2.0}, 2.0, 1.0)),
    ({"anchor_scale": 1.5, "trainable_scale": 0.25}, 1.5, 0.25),
    *slow(({"anchors": "exact", "where": "kernel", "trainable_scale": 0.0}, 1.0, 0.0)),
])  # fmt: skip
def test_anchors_are_shared_and_both_kinds_of_weights_have_the_scale_asked_for(options, anchors, trainable):
    values, mask = kernels(build(PAIR, INIT, recipe(AnchorOptions(**options))))
    plain, _ = kernels(build(PLAIN, INIT, recipe(AnchorOptions(**options))))
    assert (plain[0] != plain[1]).all()
    fixed = ~mask[0]
    np.testing.assert_array_equal(values[0][fixed], values[1][fixed])
    np.testing.assert_allclose(values[0][fixed], anchors * plain[0][fixed], rtol=1e-6)
    for i in (0, 1):
        np.testing.assert_allclose(values[i][~fixed], trainable * plain[i][~fixed], rtol=1e-6)
    assert (plain[1][fixed] != plain[0][fixed]).all()  # the control: without sharing they would differ


@pytest.mark.slow
def test_normal_anchors_have_their_own_values_and_are_shared():
    values, mask = kernels(build(PAIR, INIT, recipe(AnchorOptions(anchor_values="normal", anchor_scale=3.0))))
    fixed = ~mask[0]
    np.testing.assert_array_equal(values[0][fixed], values[1][fixed])
    assert values[0][fixed].std() == pytest.approx(3, rel=0.2)


def test_soft_anchors_start_alike_and_have_the_multiplier():
    values, mask = kernels(build(PAIR, INIT, recipe(AnchorOptions(soft=0.2))))
    assert set(np.unique(mask)) == {np.float32(0.2), np.float32(1)}
    np.testing.assert_array_equal(values[0][mask[0] < 1], values[1][mask[0] < 1])


@pytest.mark.parametrize(("options", "words"), [
    ({"soft": 1.0}, "--soft"),
    ({"anchor_scale": -1.0}, "--anchor-scale"),
    ({"trainable_scale": float("nan")}, "--trainable-scale"),
    ({"anchor_values": "norml"}, "did you mean 'normal'"),
    ({"soft": 0.2, "trainable_scale": 0.5}, "do not go together"),
])  # fmt: skip
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        collect_errors(lambda: ranges.check(AnchorOptions(**options)), AnchorOptions(**options).check_anchors)


@pytest.mark.slow
def test_a_start_is_the_same_in_every_call():
    options = AnchorOptions(anchor_values="normal")
    first, second = (build(PAIR, INIT, recipe(options)).params for _ in range(2))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), first, second))


def test_no_program_is_compiled_for_each_shape_or_key(caplog):
    """A run waits for every program before its first epoch, also where it was compiled before: each is traced and read again."""
    init = networks.linen(models.create("mlp", num_classes=3, depth=2, width=7), (11,))[1]
    members = [ModelSpec(3, 0.5, "tna", 0, 0), ModelSpec(3, 0.5, "prune", 1, 1), ModelSpec(4, 0.2, "tna", 0, 0)]
    with jax.log_compiles():
        build(members, init, recipe(AnchorOptions()))
    programs = [record.args[0] for record in caplog.records if record.msg.startswith("Compiling ")]
    assert sorted(programs) == ["jit(_initial)", "jit(prune)", "jit(share_anchors)"]
