"""Two processes with four CPU devices each: masks, steps and checks of parameters of which each process holds a part."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

jax.config.update("jax_num_cpu_devices", 4)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from tna_jax import anchored, averaging, checks, line, masks, tna_mask
from tna_jax.placement import to_host
from tna_jax.transform import apply_updates

types = (AxisType.Explicit if sys.argv[3] == "explicit" else AxisType.Auto,)
mesh = jax.make_mesh((8,), ("data",), axis_types=types)
host = {"kernel": np.arange(128, dtype=np.float32).reshape(8, 16) - 7.5, "bias": np.linspace(-1, 1, 16, dtype=np.float32)}
specs = {"kernel": P(None, "data"), "bias": P("data")}

def spread(tree):
    sharding = {name: NamedSharding(mesh, specs[name]) for name in tree}
    return {n: jax.make_array_from_callback(x.shape, sharding[n], lambda i, x=x: np.asarray(x)[i]) for n, x in tree.items()}

def same(a, b):
    assert all(to_host(x).tobytes() == np.asarray(to_host(y)).tobytes() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))

key = jax.random.key(0)
hard = jax.device_get(masks.bernoulli(key, host, 0.4))
kept = lambda tree: {n: to_host(tree[n])[~hard[n]].tobytes() for n in hard}

def main():
    params, other = spread(host), spread({n: x + 1 for n, x in host.items()})
    for draw in (masks.bernoulli, masks.exact, masks.neurons):
        same(draw(key, params, 0.4), draw(key, host, 0.4))
    mask = masks.bernoulli(key, params, 0.4)
    assert all(mask[n].sharding.spec == params[n].sharding.spec for n in mask)
    soft = masks.soft(mask, 0.5)
    same(soft, masks.soft(hard, 0.5))
    same(masks.complement(mask), masks.complement(hard))
    assert float(masks.anchored_ratio(mask)) == float(masks.anchored_ratio(hard))
    for given in (soft, hard):
        tx = anchored(optax.adamw(0.1), given)
        state = tx.init(params)
        assert all(m.sharding.spec == params[n].sharding.spec for n, m in state.mask.items())
        updates, state = tx.update(params, state, params)
        moved = optax.apply_updates(params, updates)
        assert given["bias"].dtype != bool or kept(moved) == kept(params)
        updates, _ = anchored(optax.adamw(0.1)).update(params, anchored(optax.adamw(0.1)).init(params), params, mask=given)
        apply_updates(params, updates, given)
    same(masks.share_anchors(other, params, mask), masks.share_anchors({n: x + 1 for n, x in host.items()}, host, hard))
    same(line(params, other, 1), other)
    same(averaging.uniform_soup(averaging.stack([params, params])), params)
    checks.mask_ratio(mask, 0.4, 0.1)
    checks.anchors_stay(anchored(optax.adamw(0.1), soft), params, soft)
    checks.anchors_stay(anchored(optax.adamw(0.1), mask), params, mask)
    checks.state_mask(anchored(optax.adamw(0.1), mask).init(params), mask)
    checks.anchors_shared([params, masks.share_anchors(other, params, mask)], mask)
    for wrong in (
        lambda: checks.anchors_shared([params, other], mask),
        lambda: checks.anchors_stay(optax.chain(tna_mask(mask), optax.adamw(0.1, weight_decay=0.1)), params, mask),
        lambda: checks.state_mask(anchored(optax.adamw(0.1), mask).init(params), masks.complement(mask)),
    ):
        try:
            wrong()
        except ValueError as error:
            assert "bias" in str(error) and "kernel" in str(error), error
        else:
            raise AssertionError("not noticed")

with jax.set_mesh(mesh):
    main()
print("all is well")
"""


@pytest.mark.slow
@pytest.mark.timeout(450)
@pytest.mark.parametrize("axes", ["explicit", "auto"])
def test_parameters_spread_over_two_processes(axes):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    words = [[sys.executable, "-W", "error::DeprecationWarning", "-c", PROGRAM, address, str(i), axes] for i in (0, 1)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pair = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in words
    ]
    printed = [process.communicate(timeout=400)[0] for process in pair]
    assert all("all is well" in text for text in printed), "\n".join(printed)
