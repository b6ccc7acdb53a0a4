"""Weight matching as Git Re-Basin publishes it (Ainsworth et al. 2023, arXiv 2209.04836, algorithm 1), written plainly.

The reference of `tna_jax.matching.weights`: a table of axes written by hand, every group solved in every pass, until no pass gains.
"""

import itertools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from scipy.optimize import linear_sum_assignment

Table = dict[str, tuple[str | None, ...]]
"""By path of a parameter, the name of the permutation of each of its axes."""


def weight_matching(
    table: Table, a: dict, b: dict, key: jax.Array, np: ModuleType = jnp, passes: int = 100
) -> dict[str, Any]:
    """The permutation of each group of `b`'s units; `a` and `b` hold arrays by path; `np` computes (JAX, as published, or NumPy)."""
    places: dict[str, list[tuple[str, int]]] = {}
    for path, names in table.items():
        for axis, name in enumerate(names):
            if name is not None:
                places.setdefault(name, []).append((path, axis))
    sizes = {name: a[path].shape[axis] for name, ((path, axis), *_) in places.items()}
    permutation = {name: np.arange(size) for name, size in sizes.items()}
    names = list(places)
    for turn in range(passes):
        gained = False
        for i in jax.random.permutation(jax.random.fold_in(key, turn), len(names)):
            name = names[int(i)]
            gain = np.zeros((sizes[name], sizes[name]), a[places[name][0][0]].dtype)
            for path, axis in places[name]:
                other = permuted(table[path], permutation, b[path], np, but=axis)
                rows = [np.moveaxis(leaf, axis, 0).reshape(sizes[name], -1) for leaf in (a[path], other)]
                gain = gain + rows[0] @ rows[1].T
            new = np.array(linear_sum_assignment(gain, maximize=True)[1])
            one = np.eye(sizes[name], dtype=gain.dtype)
            gained |= bool(np.vdot(gain, one[new]) > np.vdot(gain, one[permutation[name]]) + 1e-12)
            permutation[name] = new
        if not gained:
            break
    return permutation


def permuted(
    names: tuple[str | None, ...], permutation: dict, leaf: Any, np: ModuleType = jnp, but: int | None = None
) -> Any:
    """A parameter with all its axes permuted, or all but one."""
    for axis, name in enumerate(names):
        if name is not None and axis != but:
            leaf = np.take(leaf, permutation[name], axis=axis)
    return leaf


def objective(table: Table, a: dict, b: dict, permutation: dict) -> float:
    """The inner product of `a` and the permuted `b`."""
    return float(sum(jnp.vdot(a[path], permuted(names, permutation, b[path])) for path, names in table.items()))


def mlp(depth: int) -> Table:
    """The table of `tna_jax.models.mlp.MLP`."""
    found: Table = {}
    for i in range(depth + 1):
        before, after = f"P{i - 1}" if i else None, f"P{i}" if i < depth else None
        found |= {f"Dense_{i}/kernel": (before, after), f"Dense_{i}/bias": (after,)}
    return found


def resnet20() -> Table:
    """The table of `tna_jax.models.resnet` with layer norm: a stream for each stage, a group inside each block, a new stream where the
    shortcut is a convolution."""
    table: Table = {"stem/kernel": (None, None, None, "S1"), "head/kernel": ("S3", None), "head/bias": (None,)}
    norms = {"stem_norm": "S1"}
    for stage, i in itertools.product((1, 2, 3), range(3)):
        block, stream, before = f"stage{stage}_block{i}", f"S{stage}", f"S{stage - (i == 0 and stage > 1)}"
        table[f"{block}/conv1/kernel"] = (None, None, before, block)
        table[f"{block}/conv2/kernel"] = (None, None, block, stream)
        norms |= {f"{block}/norm1": block, f"{block}/norm2": stream}
        if before != stream:
            table[f"{block}/shortcut/kernel"] = (None, None, before, stream)
            norms[f"{block}/shortcut_norm"] = stream
    return table | {f"{norm}/{leaf}": (group,) for norm, group in norms.items() for leaf in ("scale", "bias")}
