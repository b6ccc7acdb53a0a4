"""Parameters spread over a mesh: a mask has its parameter's layout, and every number is that of parameters on one device."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from tests.parameters import slow, slow_but
from tna_jax import anchored, averaging, checks, interpolation, line, masks, tna_mask, transform

SPECS = {
    "kernel": PartitionSpec(None, "data"),
    "bias": PartitionSpec("data"),
    "half": PartitionSpec("data", None),
    "scale": PartitionSpec(),
}
KEY = jax.random.key(3)
EXPLICIT, AUTO = (AxisType.Explicit,), (AxisType.Auto,)
MESHES = slow_but([(EXPLICIT, 8, True)], [(t, n, s) for t in (EXPLICIT, AUTO) for n in (1, 8) for s in (True, False)])
"""The kind of axes, the devices, and whether the mesh is set."""


@pytest.fixture(autouse=True)
def optax_mixes_dtypes_itself():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def model(seed):
    rng = np.random.default_rng(seed)
    return {
        "kernel": jnp.asarray(rng.normal(size=(8, 16)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=16), jnp.float32),
        "half": jnp.asarray(rng.normal(size=(8, 3)), jnp.bfloat16),
        "scale": jnp.float32(seed + 1),
    }


def placed(tree, mesh):
    return {name: jax.device_put(leaf, NamedSharding(mesh, SPECS[name])) for name, leaf in tree.items()}


def mesh_of(types, devices):
    return jax.make_mesh((devices,), ("data",), axis_types=types, devices=jax.devices()[:devices])


def step(make, p, m):
    tx = make(m)
    updates, _ = tx.update(p, tx.init(p), p)
    return optax.apply_updates(p, updates)


def step_with_the_mask_at_update(p, m):
    tx = anchored(optax.adamw(0.1))
    updates, _ = tx.update(p, tx.init(p), p, mask=m)
    return transform.apply_updates(p, updates, m)


def soup(p, q):
    return averaging.weighted_average(averaging.stack([p, q]), [1.0, 3.0])


MASK = jax.jit(masks.bernoulli, static_argnums=2)(KEY, model(0), 0.4)
SOFT = masks.soft(MASK, 0.5)

DRAWS = {
    "bernoulli": lambda p, q, m, s: masks.bernoulli(KEY, p, 0.4),
    "exact": lambda p, q, m, s: masks.exact(KEY, p, 0.4),
    "neurons": lambda p, q, m, s: masks.neurons(KEY, p, 0.4),
    "soft": lambda p, q, m, s: masks.soft(m, 0.5),
    "complement": lambda p, q, m, s: masks.complement(m),
    "complement of soft": lambda p, q, m, s: masks.complement(s),
    "share_anchors": lambda p, q, m, s: masks.share_anchors(p, q, m),
    "share_anchors, an unplaced mask": lambda p, q, m, s: masks.share_anchors(p, q, MASK),
    "scale_anchors": lambda p, q, m, s: masks.scale_anchors(p, m, 2.0),
}
"""Equal in every bit."""

NUMBERS = {
    "draw_anchors": lambda p, q, m, s: masks.draw_anchors(KEY, p, m, 2.0),
    "prune": lambda p, q, m, s: masks.prune(p, m),
    "prune, soft": lambda p, q, m, s: masks.prune(p, s),
    "tna_mask": lambda p, q, m, s: step(lambda m: optax.chain(tna_mask(m), optax.adam(0.1)), p, m),
    "anchored": lambda p, q, m, s: step(lambda m: anchored(optax.adamw(0.1), m), p, m),
    "anchored, soft": lambda p, q, m, s: step(lambda m: anchored(optax.adamw(0.1), m), p, s),
    "anchored, an unplaced mask": lambda p, q, m, s: step(lambda m: anchored(optax.adamw(0.1), m), p, MASK),
    "anchored, the mask at update": lambda p, q, m, s: step_with_the_mask_at_update(p, m),
    "line": lambda p, q, m, s: line(p, q, 0.3),
    "plane": lambda p, q, m, s: interpolation.plane(p, q, p, 0.5, 0.25),
    "soup": lambda p, q, m, s: soup(p, q),
    "slope of the line": lambda p, q, m, s: jax.grad(lambda p: total(line(p, q, 0.3)))(p),
    "slope of the soup": lambda p, q, m, s: jax.grad(lambda p: total(soup(p, q)))(p),
}
"""Equal up to rounding."""


def total(tree):
    return sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(tree))


FEW = ("bernoulli", "share_anchors, an unplaced mask", "anchored", "line", "soup")
"""What stands for all of them by default."""


@functools.cache
def on_one_device(name):
    return jax.device_get(jax.jit((DRAWS | NUMBERS)[name])(model(0), model(1), MASK, SOFT))


@pytest.mark.parametrize(("types", "devices", "is_set"), MESHES)
@pytest.mark.parametrize(
    ("names", "traced"), [(FEW, True), *slow((tuple(DRAWS | NUMBERS), True), (tuple(DRAWS | NUMBERS), False))]
)
def test_everything_works_on_sharded_parameters(types, devices, is_set, names, traced):
    mesh = mesh_of(types, devices)
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        trees = [placed(tree, mesh) for tree in (model(0), model(1), MASK, SOFT)]

        def run(*trees):
            return {
                name: f(*trees)
                for name, f in (DRAWS | NUMBERS).items()
                if name in names
                if is_set
                or not name.startswith("slope")  # JAX itself differentiates over Explicit axes in a set mesh only
            }

        results = (jax.jit(run) if traced else run)(*trees)
    for name, tree in results.items():
        expected = on_one_device(name)
        for leaf, array in tree.items():
            if name in DRAWS:
                assert np.asarray(array).tobytes() == expected[leaf].tobytes(), (name, leaf)
            else:
                wide = [np.asarray(x, np.float32) for x in (array, expected[leaf])]
                np.testing.assert_allclose(*wide, rtol=1e-2 if leaf == "half" else 1e-5, atol=1e-6, err_msg=name)
            if types == EXPLICIT or (name in DRAWS and not traced):  # else the compiler decides
                layout = NamedSharding(mesh, SPECS[leaf])
                assert leaf == "scale" or array.sharding.is_equivalent_to(layout, array.ndim), (
                    name,
                    leaf,
                    array.sharding,
                )
    for name in (name for name in results if name.startswith("anchored") and "soft" not in name):
        for leaf, m in MASK.items():
            kept, start = np.asarray(results[name][leaf])[~np.asarray(m)], np.asarray(model(0)[leaf])[~np.asarray(m)]
            assert kept.tobytes() == start.tobytes(), (name, leaf)


@pytest.mark.slow
@pytest.mark.parametrize(("types", "devices", "is_set"), MESHES)
def test_checks_of_sharded_parameters(types, devices, is_set):
    mesh = mesh_of(types, devices)
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        p, q, m = (placed(tree, mesh) for tree in (model(0), model(1), MASK))
        checks.mask_ratio(m, 0.4)
        checks.anchors_stay(anchored(optax.adamw(0.1), m), p, m)
        checks.anchors_stay(anchored(optax.adamw(0.1)), p, m, at_update=True)
        with pytest.raises(ValueError, match="moves anchored entries: bias"):
            checks.anchors_stay(optax.chain(tna_mask(m), optax.adamw(0.1, weight_decay=0.1)), p, m)
        checks.anchors_shared([p, masks.share_anchors(q, p, m)], m)
        with pytest.raises(ValueError, match="do not share their anchors: bias"):
            checks.anchors_shared([p, q], m)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("types", "devices", "is_set"), [(EXPLICIT, 8, True), (EXPLICIT, 8, False), (AUTO, 8, True), (AUTO, 1, False)]
)
def test_models_split_over_the_devices_are_averaged_and_masked(types, devices, is_set):
    mesh = mesh_of(types, devices)
    members = averaging.stack([model(seed) for seed in range(8)])
    expected = jax.device_get(averaging.uniform_soup(members))
    mask = jax.device_get(masks.bernoulli(KEY, members, 0.4))
    with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
        split = jax.tree.map(lambda x: jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))), members)
        for leaf, array in averaging.uniform_soup(split).items():
            np.testing.assert_allclose(
                np.asarray(array, np.float32),
                np.asarray(expected[leaf], np.float32),
                rtol=1e-2 if leaf == "half" else 1e-5,
                atol=1e-6,
            )
        draw = functools.partial(masks.bernoulli, KEY, ratio=0.4)
        # JAX compiles no program whose Explicit results follow from no argument's values unless the mesh is set.
        drawn = (jax.jit(draw) if is_set or types == AUTO else draw)(split)
        updates = jax.jit(jax.vmap(lambda p, m: step(lambda m: anchored(optax.adam(0.1), m), p, m)))(split, drawn)
    for leaf, array in drawn.items():
        assert np.asarray(array).tobytes() == mask[leaf].tobytes()
        kept = np.asarray(updates[leaf])[~mask[leaf]]
        assert kept.tobytes() == np.asarray(members[leaf])[~mask[leaf]].tobytes()
