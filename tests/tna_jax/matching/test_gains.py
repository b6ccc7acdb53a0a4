"""Gains are brought up to date by what has moved: they are the differences of the objective, whatever moved before."""

import importlib.util
import sys

import jax
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from tests.tna_jax.matching.joined_network import traced
from tna_jax import trees
from tna_jax.matching import assignment, gains, permutations
from tna_jax.matching.permutations import apply_permutation, random_permutation
from tna_jax.matching.weights import weight_matching


def by_path(tree):
    return dict(trees.named_leaves(tree))


def test_gains_are_differences_of_the_objective_after_any_moves():
    spec, a, b = traced()
    assert len(spec.groups) >= 6
    both = gains.Gains(spec, by_path(a), by_path(b))
    draws = np.random.default_rng(2)
    order = permutations.identity(spec)

    def objective(order):
        moved = by_path(apply_permutation(spec, order, b))
        return sum(float(np.vdot(leaf.astype(np.float64), moved[path])) for path, leaf in by_path(a).items())

    assert not both.quadratic
    for turn in range(3):
        for name, size in spec.groups.items():
            gain, new = both.of(name, order), draws.permutation(size)
            rows = np.arange(size)
            if turn == 1:  # few units move
                new = order[name].copy()
                new[:2] = new[1::-1]
            expected = objective({**order, name: new}) - objective(order)
            assert gain[rows, new].sum() - gain[rows, order[name]].sum() == pytest.approx(expected, abs=1e-4)
            order = {**order, name: new}
    assert both.objective(order) == pytest.approx(objective(order), rel=1e-6)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("slices", [0, gains.SLICES])
def test_gains_of_a_stack_of_matrices_are_the_inner_products(axis, slices, monkeypatch):
    monkeypatch.setattr(gains, "SLICES", slices)
    draws = np.random.default_rng(axis)
    a, b = draws.normal(size=(2, 3, 2, 5, 7)).astype(np.float32)
    block = gains.Block(a, b, (None, None, "in", "out"))
    term = gains._Term(block, axis)
    sums = np.zeros((a.shape[axis],) * 2)
    for order in (np.arange(7), draws.permutation(7), np.array([1, 0, 2, 3, 4, 5, 6])):
        permutation = {"in": order[order < 5], "out": order}
        change = term.change(permutation)
        sums = sums if change is None else sums + change
        moved = b[:, :, :, order] if axis == 2 else b[:, :, order[order < 5]]
        subscripts = "xyio,xyjo->ij" if axis == 2 else "xyio,xyij->oj"
        np.testing.assert_allclose(sums, np.einsum(subscripts, a, moved), atol=1e-5)
        own = draws.permutation(a.shape[axis])
        whole = {**permutation, ("in", "out")[axis - 2]: own}
        assert term.trace(own, whole) == pytest.approx(block.inner_product(whole), rel=1e-5, abs=1e-5)


def test_a_permuted_copy_is_found_exactly_and_no_match_is_worse_than_none():
    spec, a, b = traced()
    hidden = random_permutation(spec, jax.random.key(3))
    found = weight_matching(spec, a, apply_permutation(spec, hidden, a), check=False)
    assert all(np.array_equal(found.params[name], leaf) for name, leaf in a.items())
    order = permutations.inverse(hidden)
    assert all(np.array_equal(found.permutation[name], order[name]) for name in spec.groups)
    nothing = sum(float(np.vdot(a[name], b[name])) for name in a)
    match = weight_matching(spec, a, b, check=False)
    assert match.objective == pytest.approx(sum(float(np.vdot(a[k], match.params[k])) for k in a), rel=1e-5)
    assert match.objective > nothing


def test_the_first_groups_of_the_network_are_solved_first():
    spec, *_ = traced()
    order = gains.front_to_back(spec)
    assert sorted(order) == sorted(spec.groups)
    assert [order.index(name) for name in ("left", "out", "flat", "middle")] == sorted(
        order.index(name) for name in ("left", "out", "flat", "middle")
    )
    assert order[-1] == "middle"


def test_the_compiled_library_gives_scipys_assignments():
    pytest.importorskip("lap", reason="pip install lapx")
    draws = np.random.default_rng(0)
    for n in (1, 2, 30):
        for cost in (draws.random((n, n)), draws.integers(0, 3, (n, n)).astype(float)):
            columns = assignment.shortest_augmenting_paths(cost)
            assert sorted(columns) == list(range(n))
            assert cost[np.arange(n), columns].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), abs=1e-9)


def test_a_folder_that_is_called_as_the_compiled_library_is_not_taken_for_it(tmp_path, monkeypatch):
    (tmp_path / "lap").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "lap", raising=False)
    spec = importlib.util.spec_from_file_location("another_assignment", assignment.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.shortest_augmenting_paths(np.array([[1.0, 0.0], [0.0, 2.0]])).tolist() == [1, 0]
