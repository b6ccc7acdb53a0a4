"""Partitions give every example to one client; masks and orders follow from seeds alone."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow
from tna_jax import masks, models
from tna_jax.federated import FedLC, Moon, Schedule, features, of_round, validate_update
from tna_jax.federated.algorithm import ClientUpdate, Context
from tna_jax.federated.partition import padded, partition
from tna_jax.federated.schedules import first_phase, live_share
from tna_jax.metrics import zero

LABELS = np.random.default_rng(0).integers(0, 5, 1000)


@pytest.mark.parametrize("kind", [*slow("dirichlet"), "shard", "iid"])
def test_every_example_goes_to_one_client(kind):
    parts = partition(kind, jax.random.key(1), LABELS, 13, alpha=0.1, least=4)
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert min(map(len, parts)) >= 4
    again = partition(kind, jax.random.key(1), LABELS, 13, alpha=0.1, least=4)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    other = partition(kind, jax.random.key(2), LABELS, 13, alpha=0.1, least=4)
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(parts, other, strict=True))


def test_a_small_alpha_makes_clients_differ_and_a_large_one_does_not():
    def classes(alpha):
        parts = partition("dirichlet", jax.random.key(0), LABELS, 10, alpha=alpha)
        shares = np.array([np.bincount(LABELS[part], minlength=5) / len(part) for part in parts])
        return shares.max(1).mean()

    assert classes(0.05) > 0.7
    assert classes(1000.0) < 0.3


def test_shards_give_few_classes():
    parts = partition("shard", jax.random.key(0), LABELS, 20, shards=2)
    assert max(len(np.unique(LABELS[part])) for part in parts) <= 4
    assert {len(part) for part in parts} == {50}


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "dirichlt"}, "unknown partition"), ({"alpha": 0.0}, "above 0"), ({"least": 200}, "there are 1000"),
    ({"kind": "shard", "shards": 0}, "shards"), ({"clients": 0}, "at least 1"),
])  # fmt: skip
def test_wrong_partitions_are_refused(options, message):
    values = {"kind": "dirichlet", "clients": 10, **options}
    with pytest.raises(ValueError, match=message):
        partition(values.pop("kind"), jax.random.key(0), LABELS, values.pop("clients"), **values)


def test_padding_repeats_rows_and_counts_what_is_real():
    made = padded([np.array([4, 7, 9]), np.arange(20, 25)])
    assert made.indices.shape == (2, 8)
    assert made.count.tolist() == [3, 5]
    assert made.indices[0].tolist() == [4, 7, 9, 4, 4, 4, 4, 4]


def same(a, b):
    return all(
        (np.asarray(x) == np.asarray(y)).all() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_masks_are_fresh_each_round_and_follow_from_seed_and_round(small):
    root = jax.random.key(3)
    drawn = [of_round(Schedule("pfn", 0.5), root, small.params, number) for number in (0, 1)]
    assert not same(drawn[0].mask, drawn[1].mask)
    shapes = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype), small.params)
    assert same(of_round(Schedule("pfn", 0.5), root, shapes, 1).mask, drawn[1].mask)
    assert same(of_round(Schedule("pnu", 0.5), root, small.params, 1).mask, drawn[1].mask)
    assert [float(d.split) for d in drawn] == [1, 1]
    assert float(of_round(Schedule("pnu", 0.5, split=0.25), root, small.params, 1).split) == 0.25


@pytest.mark.slow
def test_a_mask_is_the_same_in_another_process(small):
    code = (
        "import jax, numpy as np; from tna_jax.federated import Schedule, of_round\n"
        "shapes = {'w': jax.ShapeDtypeStruct((4, 3), 'float32'), 'b': jax.ShapeDtypeStruct((3,), 'float32')}\n"
        "m = of_round(Schedule('pfn', 0.5), jax.random.key(3), shapes, 6).mask\n"
        "print(''.join(str(int(v)) for name in 'bw' for v in np.asarray(m[name]).ravel()))"
    )
    root = Path(__file__).resolve().parents[3]
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    ).stdout.strip()
    mask = of_round(Schedule("pfn", 0.5), jax.random.key(3), small.params, 6).mask
    assert said == "".join(str(int(v)) for name in "bw" for v in np.asarray(mask[name]).ravel())


def test_across_rounds_the_complement_follows_its_mask(small):
    across = Schedule("pnu-rounds", 0.5)
    drawn = [of_round(across, jax.random.key(3), small.params, number).mask for number in range(4)]
    assert same(drawn[1], masks.complement(drawn[0]))
    assert same(drawn[3], masks.complement(drawn[2]))
    assert not same(drawn[2], drawn[0])


def test_phases_and_live_shares(small):
    assert [int(first_phase(jnp.float32(0.5), jnp.int32(n))) for n in range(6)] == [0, 1, 1, 2, 2, 3]
    assert int(first_phase(jnp.float32(1), jnp.int32(7))) == 7
    exact = of_round(Schedule("pfn", 0.4, draw=masks.exact), jax.random.key(0), small.params, 0).mask
    for steps, share in (((5, 0), 9 / 15), ((0, 5), 6 / 15), ((5, 1), 1.0), ((0, 0), 0.0)):
        assert live_share(small.params, exact, jnp.array(steps)) == pytest.approx(share)
    assert (
        live_share(small.params, of_round(Schedule(), jax.random.key(0), small.params, 0).mask, jnp.array([5, 0])) == 1
    )
    with pytest.raises(ValueError, match="unknown mask schedule"):
        Schedule("pfm")
    with pytest.raises(ValueError, match="ratio of a mask schedule"):
        Schedule("pfn", 1.5)


def context(small, **values):
    empty = dict.fromkeys(Context._fields)
    return Context(**{**empty, **values})


def test_fedlc_is_the_rule_and_leaves_absent_classes_out(small):
    logits = jnp.asarray([[1.0, 2.0, 3.0]])
    found = FedLC(tau=2.0).logits(logits, context(small, class_counts=jnp.asarray([16.0, 1.0, 0.0])))
    np.testing.assert_allclose(found[0, :2], [1 - 2 / 2, 2 - 2], atol=1e-6)
    assert float(jax.nn.softmax(found)[0, 2]) == 0


@pytest.mark.slow
def test_moon_prefers_the_servers_features_and_starts_neutral(small):
    broadcast = type("Broadcast", (), {"params": small.params})()
    other = jax.tree.map(lambda p: -p, small.params)
    x, weight = jnp.asarray(small.x[:5]), jnp.asarray([1.0, 1, 1, 1, 0])
    run = small.federation().features

    def value(memory, params):
        ctx = context(small, broadcast=broadcast, memory=memory, features=run, state=())
        return Moon(mu=2.0, tau=0.5).penalty(params, x, weight, ctx)

    gradient = jax.grad(lambda p: value(small.params, p))(jax.tree.map(lambda p: p + 0.1, small.params))
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-6  # last model and server's: no pull
    assert float(value(small.params, other)) == pytest.approx(2 * np.log(2), rel=1e-5)
    assert float(value(other, small.params)) == pytest.approx(2 * np.log1p(np.exp(-4)), rel=1e-3)  # cosines 1 and -1
    assert float(value(other, other)) > 1


@pytest.mark.parametrize("name", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_features_are_what_the_last_dense_layer_reads(name):
    module = models.create(name, num_classes=3, **({"depth": 2, "width": 7} if name == "mlp" else {}))
    x = jnp.ones((2, 18, 18, 1))
    params = module.init(jax.random.key(0), x)["params"]
    found = features.penultimate(module)(params, (), x)
    last = params["Dense_2" if name == "mlp" else "head"]
    logits = found @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(logits, module.apply({"params": params}, x), atol=1e-5)


def test_what_is_wrong_with_a_reply_is_said_by_path(small):
    good = ClientUpdate(small.params, (), (), jnp.asarray([3, 0], jnp.int32), jnp.float32(5), zero())
    assert validate_update(good, good, examples=5) == []
    assert validate_update(good, good, examples=6) == ["it counts 5 examples, it has 6"]
    assert validate_update(good, good._replace(examples=jnp.float32(0))) == ["it counts 0 examples"]
    assert validate_update(good, good._replace(steps=jnp.zeros(2, jnp.int32))) == ["it made [0, 0] steps"]
    w = small.params["w"]
    missing = validate_update(good, good._replace(delta={"w": w, "c": w}))
    assert missing == ["delta/b is missing", "delta/c was not asked for"]
    half = good._replace(delta=jax.tree.map(lambda x: x.astype(jnp.bfloat16), small.params))
    spoilt = half._replace(delta={**half.delta, "b": half.delta["b"].at[0].set(jnp.nan)})
    assert validate_update(half, half) == []
    assert validate_update(half, spoilt) == ["delta/b holds 1 numbers that are not finite"]
    both = validate_update(
        good, good._replace(delta={"w": np.asarray(w).astype(np.float16), "b": jnp.asarray([jnp.inf, 0, jnp.nan])})
    )
    assert both == ["delta/b holds 2 numbers that are not finite", "delta/w is float16 [4, 3], expected float32 [4, 3]"]
