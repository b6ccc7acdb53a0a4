"""What a user's own type of parameters becomes: read by type checkers, see `typed_snippets`; never run."""

from typing import TypedDict, assert_type

import jax

from tna_jax import apply_updates, greedy_soup, interpolation, line, masks, stack, trees, uniform_soup, weighted_average
from tna_jax.ensemble import member


class Net(TypedDict):
    kernel: jax.Array
    bias: jax.Array


def kept(a: Net, b: Net, mask: Net, key: jax.Array) -> None:
    assert_type(line(a, b, 0.5), Net)
    assert_type(interpolation.plane(a, b, a, 0.1, 0.2), Net)
    assert_type(interpolation.simplex([a, b], [0.5, 0.5]), Net)
    assert_type(stack([a, b]), Net)
    assert_type(uniform_soup([a, b]), Net)
    assert_type(uniform_soup((a, b)), Net)
    assert_type(uniform_soup(stack([a, b])), Net)
    assert_type(weighted_average([a, b], [1, 2]), Net)
    assert_type(greedy_soup([a, b], lambda net: net["bias"].sum())[0], Net)
    assert_type(member(stack([a, b]), 0), Net)
    assert_type(masks.share_anchors(a, b, mask), Net)
    assert_type(masks.draw_anchors(key, a, mask, 1.0), Net)
    assert_type(masks.complement(mask), Net)
    assert_type(apply_updates(a, b, mask), Net)
    assert_type(trees.like(a, [1, 2]), Net)
    plain = {"w": a["kernel"]}
    assert_type(line(plain, plain, 0.5)["w"], jax.Array)
