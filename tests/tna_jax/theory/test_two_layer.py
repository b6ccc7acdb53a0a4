"""The bounds hold as often as they say, the closed forms equal brute force, and the gap scales as `docs/theorem.md` derives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parameters import slow, slow_but
from tna_jax import line
from tna_jax.theory import two_layer

H, D, DRAWS, DELTA = 24, 12, 4096, 0.1
ALPHAS = jnp.array([0.2, 0.5, 0.9], jnp.float32)
X = np.linspace(-1, 2, D).astype(np.float32)
NORM = float(np.linalg.norm(X))
SETTINGS = {  # entries, rho_v, rho_u
    "nothing anchored": ("gaussian", 0.0, 0.0),
    "the default ratio": ("gaussian", 0.4, 0.4),
    "v anchored": ("gaussian", 1.0, 0.4),
    "U nearly anchored": ("gaussian", 0.2, 0.97),
    "uniform entries": ("uniform", 0.4, 0.4),
    "Rademacher entries": ("rademacher", 0.4, 0.8),
}


def drawn(seed: int, h: int, entries: str, rho_v: float, rho_u: float) -> np.ndarray:
    ratios = {"rho_v": jnp.float32(rho_v), "rho_u": jnp.float32(rho_u)}  # arrays: one program for all ratios
    return np.asarray(two_layer.gaps(jax.random.key(seed), jnp.asarray(X), ALPHAS, DRAWS, h, entries=entries, **ratios))


@jax.jit
def _pairs(key, rho_v, rho_u, sigma_v, sigma_u) -> two_layer.Pair:
    setting = {"rho_v": rho_v, "rho_u": rho_u, "sigma_v": sigma_v, "sigma_u": sigma_u}
    return jax.vmap(lambda of: two_layer.sample(of, H, D, **setting))(jax.random.split(key, DRAWS))


def pairs(seed: int, number: int, rho_v=0.4, rho_u=0.4, sigma_v=1.0, sigma_u=1.0) -> two_layer.Pair:
    made = jax.device_get(_pairs(jax.random.key(seed), rho_v, rho_u, sigma_v, sigma_u))
    return jax.tree.map(lambda leaf: leaf[:number], made)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "rho_v", "rho_u"), slow_but([SETTINGS["the default ratio"]], SETTINGS.values()), ids=SETTINGS
)
def test_the_share_of_draws_above_the_bound_is_at_most_delta(entries, rho_v, rho_u):
    sizes = np.abs(drawn(1, H, entries, rho_v, rho_u))
    limit = two_layer.bound(NORM, H, rho_v=rho_v, rho_u=rho_u, alpha=np.asarray(ALPHAS), delta=DELTA)
    assert (np.mean(sizes > limit, axis=0) <= DELTA).all()
    assert (np.mean(sizes > limit / 8, axis=0) > DELTA).all()  # control: a bound that is too small is found out


@pytest.mark.slow
def test_the_conditional_bounds_hold_and_come_closer():
    made = pairs(2, DRAWS)
    sizes = np.abs(jax.jit(jax.vmap(lambda pair: two_layer.gap(pair, jnp.asarray(X), 0.5)))(made))
    first_layers = two_layer.bound_of_first_layers(
        (made.first["U"] - made.second["U"]) @ X, made.mask["v"], alpha=0.5, delta=DELTA
    )
    of_masks = two_layer.bound_of_masks(X, made.mask, alpha=0.5, delta=DELTA)
    of_ratios = two_layer.bound(NORM, H, rho_v=0.4, rho_u=0.4, alpha=0.5, delta=DELTA)
    for limit in (first_layers, of_masks, of_ratios):
        assert np.mean(sizes > limit) <= DELTA < np.mean(sizes > limit / 4)
    assert first_layers.mean() < of_masks.mean() < of_ratios


def test_the_conditional_bound_holds_for_every_pair_of_first_layers():
    pair = pairs(3, 1)
    first, second, mask = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in pair)
    difference = (first["U"] - second["U"]) @ X
    a, b, w = (np.maximum(u @ X, 0) for u in (first["U"], second["U"], (first["U"] + second["U"]) / 2))
    generator = np.random.default_rng(0)
    v, other = generator.uniform(-np.sqrt(3), np.sqrt(3), (2, 20000, H))  # only v is drawn anew
    sizes = np.abs(0.5 * v @ (w - a) + 0.5 * np.where(mask["v"], other, v) @ (w - b))
    limit = two_layer.bound_of_first_layers(difference, mask["v"], alpha=0.5, delta=DELTA)
    assert np.mean(sizes > limit) <= DELTA < np.mean(sizes > limit / 4)


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9, 0.999, 1.0])
def test_the_closed_form_of_a_unit_equals_integration_over_angles(correlation, alpha):
    phi = (
        np.arange(200_000) * 2 * np.pi / 200_000
    )  # (z, z') = radius 2 x a direction, E radius^2 = 2; all is homogeneous
    first, second = np.cos(phi), np.cos(phi - np.arccos(correlation))
    between = np.maximum((1 - alpha) * first + alpha * second, 0)
    a = (1 - alpha) * (between - np.maximum(first, 0))
    b = alpha * (between - np.maximum(second, 0))
    separate, shared = two_layer.unit_moments(correlation, alpha)
    assert separate == pytest.approx(2 * np.mean(a**2 + b**2), abs=1e-9)
    assert shared == pytest.approx(2 * np.mean((a + b) ** 2), abs=1e-9)
    assert (np.abs(a) <= alpha * (1 - alpha) * np.abs(first - second) + 1e-12).all()  # the bracket of the proof
    assert (np.abs(a + b) <= alpha * (1 - alpha) * np.abs(first - second) + 1e-12).all()  # opposite signs, not twice
    assert (a * b <= 1e-12).all()


@pytest.mark.parametrize(("rho_v", "rho_u"), [*slow((0.0, 0.0), (0.4, 0.4), (1.0, 0.4)), (0.2, 0.97)])
def test_the_second_moment_equals_monte_carlo(rho_v, rho_u):
    found = np.mean(np.square(drawn(4, H, "gaussian", rho_v, rho_u), dtype=np.float64), axis=0)
    masks = pairs(5, 2000, rho_v=rho_v, rho_u=rho_u).mask
    for alpha, moment in zip(np.asarray(ALPHAS, np.float64), found, strict=True):
        exact = two_layer.second_moment(X, masks, alpha=alpha).mean()
        assert moment == pytest.approx(exact, rel=0.12)
        assert moment != pytest.approx(1.5 * exact, rel=0.12)  # control: the tolerance tells these apart


@pytest.mark.slow
def test_sigmas_scale_the_gap_its_moment_and_the_bound():
    x, one, big = jnp.asarray(X), pairs(6, 1), pairs(6, 1, sigma_v=3.0, sigma_u=0.5)
    gap = jax.jit(jax.vmap(lambda pair: two_layer.gap(pair, x, 0.3)))
    np.testing.assert_allclose(gap(big), 1.5 * gap(one), rtol=1e-5)
    plain = two_layer.second_moment(X, one.mask, alpha=0.3)
    np.testing.assert_allclose(two_layer.second_moment(X, one.mask, alpha=0.3, sigma_v=3.0, sigma_u=0.5), 2.25 * plain)
    setting = {"rho_v": 0.4, "rho_u": 0.4, "alpha": 0.3, "delta": DELTA}
    np.testing.assert_allclose(
        two_layer.bound(NORM, H, sigma_v=3, sigma_u=0.5, **setting), 1.5 * two_layer.bound(NORM, H, **setting)
    )


def test_the_gap_is_what_its_definition_says():
    def output(params, x):
        return params["v"] @ jax.nn.relu(params["U"] @ x)

    def both(pair, alpha):
        linear = (1 - alpha) * output(pair.first, x) + alpha * output(pair.second, x)
        return two_layer.gap(pair, x, alpha), output(line(pair.first, pair.second, alpha), x) - linear

    x = jnp.asarray(X)
    for_all = jax.jit(jax.vmap(jax.vmap(both, in_axes=(None, 0)), in_axes=(0, None)))
    found, expected = for_all(pairs(7, 5), jnp.array([0.0, 0.25, 0.5, 1.0], jnp.float32))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.1


def test_pairs_share_their_anchors_bit_for_bit_and_nothing_else():
    made = pairs(8, 200, rho_v=0.2, rho_u=0.7)
    for name, ratio in (("U", 0.7), ("v", 0.2)):
        equal = made.first[name].view(np.uint32) == made.second[name].view(np.uint32)
        assert (equal == ~made.mask[name]).all()
        assert np.mean(equal) == pytest.approx(ratio, abs=0.03)


@pytest.mark.slow
def test_the_gap_is_exactly_zero_where_all_of_u_is_anchored_and_at_the_ends():
    assert not drawn(9, H, "gaussian", 0.4, 1.0).any()
    assert drawn(9, H, "gaussian", 0.4, 0.97).any(axis=1).mean() > 0.9  # control
    assert two_layer.bound(NORM, H, rho_v=0.4, rho_u=1.0, alpha=0.5, delta=DELTA) == 0
    pair = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), pairs(9, 1))
    assert [float(two_layer.gap(pair, jnp.asarray(X), alpha)) != 0 for alpha in (0.0, 0.5, 1.0)] == [False, True, False]


@pytest.mark.slow
def test_the_gap_grows_like_the_root_of_the_width():
    sizes = {h: np.sqrt(np.mean(np.square(drawn(10, h, "gaussian", 0.4, 0.4)), axis=0)) for h in (6, H)}
    slope = np.log(sizes[H] / sizes[6]) / np.log(H / 6)
    np.testing.assert_allclose(slope, 0.5, atol=0.05)


def test_the_gap_of_a_unit_shrinks_with_its_trainable_share_as_derived():
    """The root of the moments: power 1/2 where the output weight is free, 3/4 where it is anchored; constants of `docs/theorem.md`."""
    free = 10.0 ** -np.array([3, 4, 5, 6])
    for alpha in (0.2, 0.5):
        separate, shared = two_layer.unit_moments(1 - free, alpha)
        weight = (alpha * (1 - alpha)) ** 2
        np.testing.assert_allclose(separate / (2 * weight * free), 1, atol=0.03)
        np.testing.assert_allclose(shared / (4 * np.sqrt(2) / (3 * np.pi) * weight * free**1.5), 1, atol=0.03)


@pytest.mark.slow
def test_the_second_moment_is_linear_in_the_ratio_of_v():
    moments = [np.mean(np.square(drawn(12, H, "gaussian", rho_v, 0.4)), axis=0) for rho_v in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(moments[1], (moments[0] + moments[2]) / 2, rtol=0.08)
    assert (moments[2] < 0.5 * moments[0]).all()  # below the (2 - rho_v) of the bound, which halves it


def test_hand_written_bounds():
    assert two_layer.bound(1, 1, rho_v=1, rho_u=0, alpha=0.5, delta=2 / np.e) == pytest.approx(0.5 * (1 + 1))
    assert two_layer.bound(3, 8, rho_v=0, rho_u=0, alpha=0.5, delta=2 / np.e) == pytest.approx(1.5 * (4 + 1))
    found = two_layer.bound(1, 100, rho_v=[0.5, 0.0], rho_u=[0.4, 0.75], alpha=0.2, delta=2 / np.e, sigma_u=5)
    assert found == pytest.approx([1.6 * (np.sqrt(90) + 1), 1.6 * (np.sqrt(50) + 1)])
    everything = {"U": np.ones((8, 2), bool), "v": np.ones(8, bool)}
    found = two_layer.bound_of_masks([0, 3], everything, alpha=0.5, delta=2 / np.e)
    assert found == pytest.approx(1.5 * (4 + 1))
    found = two_layer.bound_of_first_layers([3.0, 4.0], [True, False], alpha=0.5, delta=2 / np.e, sigma_v=2)
    assert found == pytest.approx(0.5 * np.sqrt(2 * (2 * 9 + 16)))


REFUSED = {
    "delta 0": ({"delta": 0}, "delta"),
    "one of several deltas": ({"delta": np.array([0.1, 1])}, "delta"),
    "alpha": ({"alpha": 1.1}, "alpha"),
    "rho_v": ({"rho_v": -0.1}, "rho_v"),
    "rho_u": ({"rho_u": np.nan}, "rho_u"),
}


@pytest.mark.parametrize(("change", "name"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_refused(change, name):
    good = {"rho_v": 0.4, "rho_u": 0.4, "alpha": 0.5, "delta": 0.1}
    with pytest.raises(ValueError, match=name):
        two_layer.bound(1, 8, **(good | change))


def test_an_unknown_law_is_refused():
    with pytest.raises(ValueError, match="unknown law.*'cauchy'.*gaussian, uniform, rademacher"):
        two_layer.sample(jax.random.key(0), 2, 2, rho_v=0.4, rho_u=0.4, entries="cauchy")
