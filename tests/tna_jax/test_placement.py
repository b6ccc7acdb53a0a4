"""Where models run: the rule of `auto`, padding, placing and fetching."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.xla_flags import environment_of_a_user
from tna_jax import placement


def dense(kernel, x):
    return jnp.dot(x, kernel)


def convolve(kernel, x):
    return jax.lax.conv(x, kernel, (1, 1), "VALID")


DENSE = dense, jnp.ones((3, 2)), jnp.ones((1, 3))
CONVOLUTION = convolve, jnp.ones((2, 1, 3, 3)), jnp.ones((1, 1, 8, 8))


@pytest.mark.parametrize(
    ("backend", "convolutions", "expected"),
    [
        ("cpu", False, "map"),
        ("cpu", True, "loop"),
        ("gpu", False, "vmap"),
        ("gpu", True, "map"),
        ("cuda", True, "map"),
        ("rocm", True, "map"),
        ("tpu", False, "vmap"),
        ("tpu", True, "vmap"),
    ],
)
def test_the_rule_of_auto(backend, convolutions, expected, monkeypatch):
    assert placement.automatic(backend, convolutions) == expected
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert placement.resolve("auto", *(CONVOLUTION if convolutions else DENSE)) == expected


@pytest.mark.parametrize("chosen", ["map", "vmap", "loop"])
def test_what_is_asked_for_is_taken_without_looking_at_the_network(chosen, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert placement.resolve(chosen, None) == chosen


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="unknown placement 'pmap': known are auto, map, vmap, loop"):
        placement.resolve("pmap", *DENSE)


@pytest.fixture
def new_process():
    """As if nothing had been warned of yet."""
    placement._warn_of_slow_kernels.cache_clear()
    yield
    placement._warn_of_slow_kernels.cache_clear()


def test_slow_kernels_are_warned_of_once_and_for_convolutions_on_cpus_only(monkeypatch, new_process):
    monkeypatch.setattr(placement, "slow_kernels", lambda: True)
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    placement.resolve("auto", *CONVOLUTION)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    placement.resolve("auto", *DENSE)
    placement.resolve("loop", *CONVOLUTION)
    with pytest.warns(UserWarning, match=r"several times slower .*configure\(\), or XLA_FLAGS=--xla_cpu_\w+="):
        placement.resolve("auto", *CONVOLUTION)
    placement.resolve("auto", *CONVOLUTION)  # no second one: warnings are errors here


@pytest.mark.cpu_only("the kernels are those of XLA for CPUs")
def test_the_programs_switch_them_off_and_nothing_is_warned_of(new_process):
    """`backend.configure` ran before these tests."""
    assert not placement.slow_kernels()
    placement.resolve("auto", *CONVOLUTION)


@pytest.mark.slow
@pytest.mark.cpu_only("the kernels are those of XLA for CPUs")
@pytest.mark.parametrize("flags", ["", "--xla_cpu_experimental_ynn_fusion_type="])
def test_who_uses_the_library_without_the_flag_is_told(flags):
    code = (
        "import jax; from tna_jax import placement; s = jax.ShapeDtypeStruct((8, 8, 8, 8), 'float32'); "
        "placement.resolve('auto', lambda x: jax.lax.conv(x, x, (1, 1), 'SAME'), s)"
    )
    environment = environment_of_a_user() | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    told = jax.__version_info__ < (0, 13) and not flags
    assert ("UserWarning: jaxlib" in done.stderr) == told, done.stderr


@pytest.mark.parametrize(
    ("length", "multiple", "expected"), [(3, 4, [0, 1, 2, 2]), (4, 4, [0, 1, 2, 3]), (1, 3, [0, 0, 0])]
)
def test_padding_repeats_the_last_entry(length, multiple, expected):
    tree = {"a": np.arange(length), "b": jnp.stack([jnp.arange(length)] * 2, axis=1)}
    padded = placement.pad(tree, multiple)
    assert padded["a"].tolist() == expected
    assert padded["b"][:, 1].tolist() == expected


@pytest.mark.cpu_only("needs two devices")
def test_what_is_placed_comes_back():
    mesh = placement.mesh(jax.devices()[:2])
    tree = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    split, copied = placement.shard(tree, mesh), placement.replicate(tree, mesh)
    assert split["x"].addressable_shards[0].data.shape == (1, 3)
    assert copied["x"].addressable_shards[0].data.shape == (2, 3)
    for placed in (split, copied):
        assert isinstance(placement.to_host(placed)["x"], np.ndarray)
        np.testing.assert_array_equal(placement.to_host(placed)["x"], tree["x"])
    shorter = {"x": np.zeros((1, 3), np.float32)}
    placement.fetch_into(split, shorter)
    np.testing.assert_array_equal(shorter["x"], tree["x"][:1])


@pytest.mark.cpu_only("needs two devices")
def test_a_share_of_one_model_has_no_leading_axis():
    mesh = placement.mesh(jax.devices()[:2])
    stacked = placement.shard(np.arange(6, dtype=np.float32).reshape(2, 3), mesh)
    shapes = []

    def scale(x, factor):
        shapes.append(x.shape)
        return x * factor

    for wrap in (placement.shard_map_single, placement.shard_map_stacked):
        scaled = wrap(scale, mesh, 1)(stacked, np.float32(2))
        np.testing.assert_array_equal(scaled, 2 * np.asarray(stacked))
    assert shapes == [(3,), (1, 3)]


@pytest.mark.cpu_only("arrays on a GPU are cut and joined there")
def test_arrays_on_one_cpu_device_are_padded_copied_and_spread_without_a_program():
    compiled = []

    def listen(event, seconds, **_):
        compiled.extend([event] * event.endswith("backend_compile_duration"))

    draws = np.random.default_rng(0).normal(size=(11, 2, 17)).astype(np.float32)  # of a shape that no other test has
    tree = jax.device_put({"a": draws, "b": draws[:, 0].astype(np.int8)})
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        padded = placement.pad(tree, 8)
        copied = placement.copied(padded)
        spread = placement.shard(copied, placement.mesh())
        assert not compiled
        jnp.ones((11, 2, 19)) + 1
        assert compiled  # the control
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    for name, leaf in tree.items():
        longer = np.concatenate([leaf, np.repeat(leaf[-1:], 5, 0)])
        assert all(
            x[name].dtype == leaf.dtype and np.asarray(x[name]).tobytes() == longer.tobytes()
            for x in (padded, copied, spread)
        )
        assert copied[name].unsafe_buffer_pointer() != padded[name].unsafe_buffer_pointer()
        assert spread[name].sharding.num_devices == 8 and spread[name].addressable_shards[7].data.shape[0] == 2
    jax.jit(lambda x: jax.tree.map(jnp.negative, x), donate_argnums=0)(spread)
    assert np.asarray(tree["a"]).tobytes() == draws.tobytes()  # no memory of the caller's was donated
