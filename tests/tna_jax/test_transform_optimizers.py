"""No optimizer of optax moves an anchor: every name that optax and optax.contrib export, 50 steps, compared bit for bit.

Each optimizer runs with its weight decay, momentum and noise switched on. Beside `anchored` runs the control: the mask only
*first* in the chain, which lets some of them move anchors (`MOVES`) and is right for all the others.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from tests.parameters import slow_but
from tna_jax import masks
from tna_jax.transform import anchored, apply_updates, tna_mask

STEPS, RATE = 50, 0.05
PARAMS = {
    "dense": {
        "kernel": np.float32([[-0.0, 0.5, 1e4], [1.5, -2.0, 0.25], [0.0, -0.0, 3.0], [-1e-30, 1.0, -0.75]]),
        "bias": np.float32([-0.0, 0.5, -1e4]),
    },
    "gain": np.float32([-3.5]),
}
MASK = {
    "dense": {
        "kernel": np.array([[0, 1, 0], [1, 1, 1], [0, 0, 1], [0, 1, 0]], bool),
        "bias": np.array([0, 1, 0], bool),
    },
    "gain": np.array([False]),
}
LABELS = {"dense": "a", "gain": "b"}

# Switched on wherever a signature has them.
SWITCHES = {
    "learning_rate": RATE, "weight_decay": 0.1, "weight_decay_rate": 0.1, "adam_weight_decay": 0.1, "momentum": 0.9,
    "nesterov": True, "eta": 0.1, "gamma": 0.55, "key": 3, "centered": True,
}  # fmt: skip

# Each name that optax exports is in exactly one of these tables. The values are arguments beside `SWITCHES`.
OPTIMIZERS = {
    "adabelief": {}, "adadelta": {"learning_rate": 10.0}, "adafactor": {"min_dim_size_to_factor": 2}, "adagrad": {}, "adam": {},
    "adamax": {}, "adamaxw": {}, "adamw": {}, "adan": {}, "amsgrad": {}, "fromage": {}, "lamb": {}, "lars": {}, "lbfgs": {
    "learning_rate": None}, "lion": {}, "nadam": {}, "nadamw": {}, "noisy_sgd": {}, "novograd": {}, "optimistic_adam": {
    "optimism": 0.1}, "optimistic_adam_v2": {}, "optimistic_gradient_descent": {}, "polyak_sgd": {}, "radam": {},
    "rmsprop": {}, "rprop": {}, "sgd": {}, "sign_sgd": {}, "signum": {}, "sm3": {}, "yogi": {},
    "acprop": {}, "ademamix": {}, "adopt": {}, "cocob": {}, "dadapt_adamw": {"estim_lr0": 0.01}, "dog": {}, "dowg": {}, "dpsgd": {
    "l2_norm_clip": 1.0, "noise_multiplier": 0.5, "seed": 3}, "galore": {"rank": 1, "update_proj_gap": 5}, "madgrad": {},
    "momo": {}, "momo_adam": {}, "muon": {}, "prodigy": {"estim_lr0": 0.01}, "schedule_free_adamw": {}, "schedule_free_sgd": {},
    "simplified_ademamix": {}, "sophia": {"gamma": 0.01},
}  # fmt: skip

# Pieces of optimizers, run as chain(piece, scale(-RATE)).
PIECES = {
    "adaptive_grad_clip": {"clipping": 0.5}, "add_decayed_weights": {}, "add_noise": {}, "apply_every": {"k": 2},
    "centralize": {}, "clip": {"max_delta": 1.0}, "clip_by_block_rms": {"threshold": 1.0}, "clip_by_global_norm": {
    "max_norm": 1.0}, "ema": {"decay": 0.9}, "identity": {}, "keep_params_nonnegative": {}, "normalize_by_update_norm": {},
    "scale": {"step_size": 2.0}, "scale_by_adadelta": {}, "scale_by_adam": {}, "scale_by_adamax": {}, "scale_by_adan": {},
    "scale_by_amsgrad": {}, "scale_by_backtracking_linesearch": {"max_backtracking_steps": 5}, "scale_by_belief": {},
    "scale_by_distance_over_gradients": {}, "scale_by_factored_rms": {"min_dim_size_to_factor": 2}, "scale_by_lbfgs": {},
    "scale_by_learning_rate": {"flip_sign": False}, "scale_by_lion": {}, "scale_by_novograd": {},
    "scale_by_optimistic_gradient": {}, "scale_by_param_block_norm": {}, "scale_by_param_block_rms": {},
    "scale_by_polyak": {}, "scale_by_radam": {}, "scale_by_rms": {}, "scale_by_rprop": {}, "scale_by_rss": {},
    "scale_by_schedule": {"step_size_fn": optax.linear_schedule(1.0, 0.5, 50)}, "scale_by_sign": {}, "scale_by_sm3": {},
    "scale_by_stddev": {}, "scale_by_trust_ratio": {}, "scale_by_yogi": {}, "scale_by_zoom_linesearch": {
    "max_linesearch_steps": 5}, "set_to_zero": {}, "stateless": {"f": lambda u, p: u}, "stateless_with_tree_map": {
    "f": lambda u, p: u + p}, "trace": {"decay": 0.9}, "zero_nans": {},
    "differentially_private_aggregate": {"l2_norm_clip": 1.0, "noise_multiplier": 0.5},
    "hutchinson_estimator_diag_hessian": {}, "normalize": {}, "reduce_on_plateau": {}, "scale_by_acprop": {},
    "scale_by_ademamix": {}, "scale_by_adopt": {}, "scale_by_cocob": {}, "scale_by_galore": {"rank": 1},
    "scale_by_madgrad": {}, "scale_by_simplified_ademamix": {},
    "snapshot": {"measure_name": "norm", "measure": optax.tree.norm}, "monitor": {"measures": {"norm": optax.tree.norm}},
}  # fmt: skip

MATRICES = functools.partial(jax.tree.map, lambda p: optax.contrib.MuonDimensionNumbers())
DECAY = functools.partial(optax.adamw, RATE, weight_decay=0.1)

# Wrappers, built around an optimizer with weight decay.
WRAPPERS = {
    "apply_if_finite": lambda: optax.apply_if_finite(DECAY(), 3),
    "chain": lambda: optax.chain(optax.clip_by_global_norm(1.0), DECAY()),
    "conditionally_mask": lambda: optax.conditionally_mask(DECAY(), lambda step: step % 2 == 0),
    "conditionally_transform": lambda: optax.conditionally_transform(DECAY(), lambda step: step % 2 == 0),
    "flatten": lambda: optax.flatten(DECAY()),
    "freeze": lambda: optax.chain(DECAY(), optax.freeze(dict.fromkeys(LABELS, False))),
    "inject_hyperparams": lambda: optax.inject_hyperparams(optax.adamw)(RATE, weight_decay=0.1),
    "inject_stateful_hyperparams": lambda: optax.inject_stateful_hyperparams(optax.adamw)(RATE, weight_decay=0.1),
    "masked": lambda: optax.masked(DECAY(), {"dense": {"kernel": True, "bias": False}, "gain": True}),
    "multi_transform": lambda: optax.multi_transform({"a": DECAY(), "b": optax.sgd(RATE)}, LABELS),
    "named_chain": lambda: optax.named_chain(("clip", optax.clip(1.0)), ("adamw", DECAY())),
    "partition": lambda: optax.partition({"a": DECAY(), "b": optax.sgd(RATE)}, LABELS),
    "selective_transform": lambda: optax.selective_transform(DECAY(), freeze_mask=dict.fromkeys(LABELS, False)),
    "with_extra_args_support": lambda: optax.with_extra_args_support(DECAY()),
    "mechanize": lambda: optax.contrib.mechanize(DECAY(), weight_decay=0.1),
    "sam": lambda: optax.contrib.sam(DECAY(), optax.chain(optax.contrib.normalize(), optax.sgd(0.1))),
    "schedule_free": lambda: optax.contrib.schedule_free(DECAY(b1=0.0), RATE),
    "split_real_and_imaginary": lambda: optax.contrib.split_real_and_imaginary(DECAY()),
    "measure_with_ema": lambda: optax.chain(
        optax.monitor({"norm": optax.measure_with_ema(optax.tree.norm, 0.9)}), DECAY()),
    "scale_by_muon": lambda: optax.chain(optax.partition(
        {"a": optax.contrib.scale_by_muon(weight_dimension_numbers=MATRICES), "b": optax.identity()}, {"dense": {"kernel": "a", "bias": "b"}, "gain": "b"}),
        optax.scale(-RATE)),
    "MultiSteps": lambda: optax.MultiSteps(DECAY(), 2).gradient_transformation(),
}  # fmt: skip

# Tried by default; the others are slow.
COMMON = (
    "sgd", "adam", "adamw", "nadam", "lamb", "lion", "muon", "yogi", "schedule_free_adamw",
    "chain", "flatten", "inject_hyperparams", "masked", "multi_transform", "sam", "MultiSteps",
)  # fmt: skip

# Tested by itself below: its parameters are a pair.
ALONE = {"lookahead"}

# Exported without a return annotation, and no transformation.
OTHER = {
    "matrix_inverse_pth_root", "schedule_free_eval_params", "sigmoid_binary_cross_entropy", "update_infinity_moment",
    "update_moment", "update_moment_per_elem_norm",
}  # fmt: skip

# With `tna_mask` only *first* these move anchors, for the reason named. It is right for all other optimizers.
MOVES = {
    "weight decay": {
        "adadelta", "adafactor", "adamaxw", "adamw", "adan", "lamb", "lars", "lion", "nadamw", "novograd", "acprop", "ademamix",
        "cocob", "dadapt_adamw", "dog", "dowg", "momo", "momo_adam", "prodigy", "simplified_ademamix", "sophia",
    },
    "noise": {"noisy_sgd", "dpsgd"},
    "the parameters are rescaled": {"fromage"},
    "momentum starts at 1e-6": {"yogi"},
    "the update of an entry depends on its whole matrix": {"galore", "muon"},
    "the update is a difference of rounded averages": {"madgrad", "schedule_free_adamw", "schedule_free_sgd"},
}  # fmt: skip
STILL = {"set_to_zero"}  # moves nothing at all
PER_EXAMPLE = {"dpsgd", "differentially_private_aggregate"}  # gradients with a batch axis in front


GROWING = {"monitor", "measure_with_ema"}  # their state has another structure after the first update
DIVERGES = {"scale_by_param_block_norm", "scale_by_param_block_rms"}  # steps as long as the parameters


# The programs run for a millisecond and are compiled for far longer.
QUICK = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False


def exported() -> set[str]:
    """Functions that return a transformation by their annotation, or have none; and classes that make transformations."""
    names = set()
    for module in (optax, optax.contrib):
        for name, value in vars(module).items():
            if name.startswith("_") or not callable(value):
                continue
            if inspect.isclass(value):
                if hasattr(value, "gradient_transformation"):
                    names.add(name)
            elif inspect.isfunction(value) or isinstance(value, functools.partial):
                returns = inspect.signature(value).return_annotation
                if returns is inspect.Signature.empty or "GradientTransformation" in str(returns):
                    names.add(name)
    return names


def test_every_exported_name_is_classified_once():
    tables = [set(OPTIMIZERS), set(PIECES), set(WRAPPERS), ALONE, OTHER]
    known = set().union(*tables)
    assert sum(map(len, tables)) == len(known)
    assert exported() - known == set(), "new in optax: try it under `anchored` and add it to a table"
    assert known - exported() == set(), "gone from optax"
    assert {
        "adamw",
        "dog",
        "nadam",
        "MultiSteps",
        "sam",
    } <= exported()  # the search finds functions, partials, classes


def build(name: str) -> optax.GradientTransformation:
    if name in WRAPPERS:
        return WRAPPERS[name]()
    factory = getattr(optax.contrib, name, None) or getattr(optax, name)
    allowed = inspect.signature(factory).parameters
    arguments = {k: v for k, v in SWITCHES.items() if k in allowed} | OPTIMIZERS.get(name, PIECES.get(name))
    made = factory(**arguments)
    return made if name in OPTIMIZERS else optax.chain(made, optax.scale(-RATE))


def loss(params):
    flat = [jnp.sum((jnp.clip(p, -10.0, 10.0) - 5.0) ** 2) for p in jax.tree.leaves(params)]
    return 0.5 * sum(flat, start=jnp.float32(0))


BAD = np.resize(np.float32([np.nan, np.inf, -np.inf, 1e30]), STEPS)


def gradients(params, bad):
    """Of the quadratic, `bad` under the anchors."""
    return jax.tree.map(lambda m, p: jnp.where(m, p - 5.0, bad), MASK, params)


def extras(name: str, params):
    finite = jax.tree.map(lambda p: p - 5.0, params)
    if name in ("sophia", "hutchinson_estimator_diag_hessian"):
        return {"obj_fn": loss}
    return {} if name == "sam" else {"value": loss(params), "grad": finite, "value_fn": loss}


def train(name: str, optimizer, params=PARAMS):
    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(params):
        def step(carry, bad):
            params, state = carry
            g = gradients(params, bad)
            if name in PER_EXAMPLE:
                g = jax.tree.map(lambda x: jnp.stack([x, x]), g)
            updates, state = optimizer.update(g, state, params, **extras(name, params))
            return (optax.apply_updates(params, updates), state), None

        carry = params, optimizer.init(params)
        if name in GROWING:
            carry, _ = step(carry, BAD[0])
        return jax.lax.scan(step, carry, BAD)[0][0]

    # optax itself mixes dtypes (adam's float ** int) and ranks.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.tree.map(np.asarray, run(jax.tree.map(jnp.asarray, params)))


def bits(array) -> np.ndarray:
    return np.asarray(array).view(np.uint32)


def moved(after, before=PARAMS):
    """Per entry: whether its bits changed. (anchored entries, trainable entries)"""
    found = [
        (bits(a) != bits(b), np.asarray(m))
        for a, b, m in zip(*map(jax.tree.leaves, (after, before, MASK)), strict=True)
    ]
    return np.concatenate([c[~m] for c, m in found]), np.concatenate([c[m] for c, m in found])


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")  # optax warns of its own names
@pytest.mark.parametrize("name", slow_but(COMMON, [*OPTIMIZERS, *PIECES, *WRAPPERS]))
def test_no_optimizer_moves_an_anchor(name):
    after = train(name, anchored(build(name), MASK))
    anchors, trainable = moved(after)
    assert not anchors.any()
    assert trainable.all() == (name not in STILL)
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(after)) == (name not in DIVERGES)


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", slow_but(["sgd", "adam", "adamw", "lamb", "yogi"], OPTIMIZERS))
def test_the_mask_only_first_is_right_for_optimizers_that_answer_zero_with_zero(name):
    after = train(name, optax.chain(tna_mask(MASK), build(name)))
    pairs = zip(*map(jax.tree.leaves, (after, PARAMS, MASK)), strict=True)
    anchors_moved = any((a[~m] != b[~m]).any() for a, b, m in pairs)  # by value: -0.0 may become 0.0
    assert anchors_moved == any(name in names for names in MOVES.values())


def pair_bits(params: optax.LookaheadParams):
    return moved(params.fast), moved(params.slow)


def train_pair(optimizer, mask=None):
    """Lookahead's parameters are a pair; gradients and the inner optimizer see only its fast half."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(pair):
        def step(carry, bad):
            pair, state = carry
            updates, state = optimizer.update(gradients(pair.fast, bad), state, pair)
            pair = optax.apply_updates(pair, updates) if mask is None else apply_updates(pair, updates, mask)
            return (pair, state), None

        return jax.lax.scan(step, (pair, optimizer.init(pair)), BAD)[0][0]

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return run(optax.LookaheadParams.init_synced(jax.tree.map(jnp.asarray, PARAMS)))


def test_lookahead_goes_around_anchored():
    """Around, not inside: `anchored(lookahead)` would have to mask a pair of trees, while its gradients are one tree.

    Lookahead then adds +0 to the slow half, so an anchor of -0.0 becomes 0.0 there unless `apply_updates` copies it.
    """
    optimizer = optax.lookahead(anchored(DECAY(), MASK), sync_period=5, slow_step_size=0.5)
    after = train_pair(optimizer)
    for half in after:
        for a, b, m in zip(*map(jax.tree.leaves, (half, PARAMS, MASK)), strict=True):
            np.testing.assert_array_equal(np.asarray(a)[~m], b[~m])
            assert (np.asarray(a)[m] != b[m]).all()
    for anchors, trainable in pair_bits(train_pair(optimizer, optax.LookaheadParams(MASK, MASK))):
        assert not anchors.any() and trainable.all()
    fast, _ = pair_bits(train_pair(optax.lookahead(optax.chain(tna_mask(MASK), DECAY()), 5, 0.5)))
    assert fast[0].any()  # control: decay moves anchors


@pytest.mark.slow
def test_schedule_free_needs_anchors_inside_for_its_evaluation_parameters():
    """`anchored(schedule_free(base))` keeps the parameters, but the average that is evaluated drifts with base's decay.

    With `anchored` inside as well it equals the anchors up to rounding, and `share_anchors` restores the bits.
    """

    def evaluated(base):
        optimizer = anchored(optax.contrib.schedule_free(base, RATE), MASK)
        params = jax.tree.map(jnp.asarray, PARAMS)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            state = optimizer.init(params)
            step = jax.jit(lambda g, s, p: optimizer.update(g, s, p), compiler_options=QUICK)
            for bad in BAD[:10]:
                updates, state = step(gradients(params, bad), state, params)
                params = optax.apply_updates(params, updates)
            assert not moved(params)[0].any()
            return params, optax.contrib.schedule_free_eval_params(state.inner, params)

    def furthest(tree):
        pairs = zip(*map(jax.tree.leaves, (tree, PARAMS, MASK)), strict=True)
        return max(np.max(np.abs(np.asarray(a) - b)[~m] / np.maximum(np.abs(b[~m]), 1e-6)) for a, b, m in pairs)

    _, drifted = evaluated(DECAY(b1=0.0))
    params, close = evaluated(anchored(DECAY(b1=0.0), MASK))
    assert furthest(drifted) > 1e-3  # control
    assert furthest(close) < 1e-6
    assert not moved(masks.share_anchors(close, params, MASK))[0].any()
