"""The record's setting is the published one, its slices join without a seam, and its claims need pairs."""

import dataclasses
import json
import math
import time

import jax
import numpy as np
import pytest

from tna_jax import ensemble, masks, models, trees
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from train import record
from train.record import blocks, drawing, members, settings, state
from train.record.rows import Row
from train.record.settings import CASES, agree


def test_the_rate_grows_as_published():
    rate = settings.growing_rate()
    for epoch in range(100):
        assert rate(epoch) == pytest.approx(min(1e-4 * 100 ** (epoch / 20), 1e-2), rel=1e-5)
    assert rate(1) / rate(0) == pytest.approx(1.259, abs=5e-4)
    assert rate(19) < rate(20) == rate(99) == pytest.approx(1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "share"), [("mlp", 0.108), ("resnet20", 0.156), ("resnet20x8", 0.059)])
def test_anchors_are_as_many_as_published(case, share):
    mask = CASES[case].rows["w_asym"].recipe(0).draw(shapes(CASES[case]))
    assert float(masks.anchored_ratio(mask)) == pytest.approx(share, abs=5e-4)


def shapes(case):
    side = (28, 28, 1) if case.dataset == "mnist" else (32 // case.stride, 32 // case.stride, 3)
    module = models.create(case.model, num_classes=10, **case.options)
    return jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *side), np.float32))["params"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_anchors_of_every_row_fit_the_network(name):
    case = CASES[name]
    params = shapes(case)
    kernels = [path for path, leaf in trees.named_leaves(params) if path[-1] == "kernel"]
    assert set(case.core) <= set(case.rows)
    for row in case.rows.values():
        if (recipe := row.recipe(0)) is not None:
            jax.eval_shape(recipe.draw, params)  # counts are no larger than the inputs there are
            if recipe.counts is not None:
                assert set(trees.by_path(recipe.counts, kernels, "counts")) == set(kernels)  # no layer is left out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11", "cnn"])
def test_a_convolutional_network_has_the_shares_of_the_resnet(name):
    kernels = {".".join(path): leaf for path, leaf in trees.named_leaves(shapes(CASES[name])) if path[-1] == "kernel"}
    for path, count in trees.by_path(
        CASES[name].rows["w_asym"].anchors["counts"], [tuple(k.split(".")) for k in kernels], "counts"
    ).items():
        inputs = math.prod(kernels[".".join(path)].shape[:-1])
        wanted = 12 / 27 if inputs == 27 else 1 / 8 if inputs >= 2304 or path[0] in ("dense", "head") else None
        assert count / inputs == pytest.approx(wanted) if wanted else 3 / 16 <= count / inputs <= 1 / 4


def test_a_state_is_cut_into_parts_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(state, "PART_BYTES", 100)
    tree = {"a": np.arange(60, dtype=np.float32).reshape(3, 20), "b": np.array([True, False])}
    state.save(tmp_path, 4, jax.tree.map(np.zeros_like, tree))
    state.save(tmp_path, 5, tree)
    folder = state.newest(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name] and folder.name == "epoch_005"
    assert max(path.stat().st_size for path in folder.glob("part_*")) == 100
    epoch, again = state.read(folder, tree)
    assert epoch == 5 and jax.tree.all(jax.tree.map(np.array_equal, tree, again))
    with pytest.raises(UsageError, match="holds other networks"):
        state.read(folder, {"a": tree["a"]})
    (folder / "part_001.bin").write_bytes(b"other")
    with pytest.raises(UsageError, match="not those that were written"):
        state.read(folder, tree)


ROWS = {
    "standard": Row("no anchors"),
    "w_asym": Row("W-Asym", {"kind": "per-unit", "counts": {"Dense": 4}, "values": "normal"}),
    "small": Row("start 0.1", {"kind": "per-unit", "ratio": 0.4, "scale": 1.5}, start=0.1, decay=0.1),
    "one": Row("one initial value", one_init=True),
}
TINY = dataclasses.replace(
    settings.CASES["mlp"], dataset="digits", options={"depth": 2, "width": 8, "norm": "layer"}, rows=ROWS, core=("standard", "w_asym"),
    stages=(1, 3), measured_at=(2,), batch_size=32, train_examples=96, held_out=48, mean=(0.3,), std=(0.3,), members=4,
)  # fmt: skip


@pytest.mark.slow
def test_slices_join_to_the_same_bytes(tmp_path):
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam
        _slices_join(tmp_path)


def _slices_join(tmp_path):
    network = members.load(TINY)
    plan = blocks.blocks("tiny", TINY, 2, 1)
    assert [block.name for block in plan] == ["core_0", "core_1", "rest_a_0"]
    assert plan[2].rows == ("small", "one")
    block = plan[0]._replace(rows=tuple(ROWS))
    start, pairs = members.build(TINY, network, block.rows, 0)
    assert [pair.members for pair in pairs] == [(0, 1), (2, 3), (4, 5), (0, 6)]  # what two rows share is trained once
    for until in (1, 3):
        assert blocks.advance(block, TINY, network, tmp_path / "whole", until, math.inf)
    assert not blocks.advance(block, TINY, network, tmp_path / "cut", 3, time.monotonic() - 1)  # no epoch is begun
    for until in (1, 2):
        assert blocks.advance(block, TINY, network, tmp_path / "cut", until, math.inf)
        assert state.newest(tmp_path / "cut").name == f"epoch_00{until}"
    file = tmp_path / "cut" / blocks.MEASURED
    file.write_text(
        json.dumps([*json.loads(file.read_text()), {"epoch": 2.5}])
    )  # measured, but its state was not saved
    assert blocks.advance(block, TINY, network, tmp_path / "cut", 3, math.inf)
    contents = [
        sorted((p.name, p.read_bytes()) for p in (tmp_path / name / "epoch_003").iterdir()) for name in ("whole", "cut")
    ]
    assert contents[0] == contents[1]
    whole, cut = (blocks.measured(tmp_path / name) for name in ("whole", "cut"))
    assert [e.pop("provenance", {"seeds": []})["seeds"] for e in (*whole, *cut)] == 2 * [
        [0],
        [],
        [0],
    ]  # it tells when they began
    assert whole == cut and [(e["epoch"], e["complete"]) for e in whole] == [(1, True), (2, False), (3, True)]
    rows = {row["row"]: row for row in whole[-1]["rows"]}
    assert rows["one"]["start"]["distance"] == 0 and rows["one"]["start"]["trained_cosine"] == pytest.approx(1)
    assert rows["standard"]["beta_mean"] is None and rows["small"]["beta_mean"] > 0
    assert rows["w_asym"]["start"]["cosine"] > rows["w_asym"]["start"]["trained_cosine"]
    trained, _ = members.build(TINY, network, block.rows, 0)
    _, params = state.read(tmp_path / "whole" / "epoch_003", (trained.params, trained.opt_state, trained.state))
    for mask, before, after in zip(*map(jax.tree.leaves, (start.mask, start.params, params[0])), strict=True):
        fixed = ~np.asarray(mask)
        assert np.array_equal(np.asarray(before)[fixed], after[fixed])  # anchors, bit for bit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("order", r"other settings.*\(rows\)"),
        ("recipe", r"other settings.*\(recipe\)"),
        ("unknown", "does not say"),
        ("anchors", "anchors are not those"),
    ],
)
def test_networks_of_other_settings_are_not_trained_on(change, said, tmp_path):
    block = blocks.Block("tiny", "rest_a_0", ("w_asym", "small"), 0)
    with jax.numpy_dtype_promotion("standard"):
        network = members.load(TINY)
        assert not blocks.advance(block, TINY, network, tmp_path, 1, -math.inf)  # saved before its first epoch
        case = TINY
        if change == "order":
            block = block._replace(rows=block.rows[::-1])  # as many networks of the same shapes
        elif change == "recipe":
            case = dataclasses.replace(TINY, decay=0.2)
        elif change == "unknown":
            (tmp_path / blocks.SETTINGS).unlink()
        else:
            other, _ = members.build(TINY, network, block.rows, 1)
            state.save(tmp_path, 0, ensemble.trained_part(other))
        with pytest.raises(UsageError, match=said):
            blocks.advance(block, case, network, tmp_path, 1, math.inf)


def measured(barrier, seed):
    return {"row": "w_asym" if barrier > 0.5 else "small", "test": {"loss_barrier": barrier + 0.01 * seed}}


def test_a_claim_needs_five_pairs():
    entries = {
        f"core_{seed}": [{"epoch": 1, "complete": True, "rows": [measured(0.9, seed), measured(0.1, 2 * seed)]}]
        for seed in range(5)
    }
    case = {"labels": {"w_asym": "", "small": ""}, "blocks": entries}
    ((name, n, difference, p),) = drawing.compared(case, 1)
    assert (name, n) == ("small", 5) and difference == pytest.approx(-0.78) and p < 1e-4
    del entries["core_4"]
    assert list(drawing.compared(case, 1)) == []


def test_an_unknown_case_is_refused():
    with pytest.raises(UsageError, match="resnet20_small"):
        record.run(case="resnet20_smal")


def test_a_fresh_clone_goes_on_where_the_committed_results_stand(tmp_path):
    results = json.loads((record.RESULTS / "record.json").read_text())
    record.restore(results, tmp_path)
    for name, case in results["cases"].items():
        planned = {block.name: block for block in blocks.blocks(name, CASES[name], 6, 6)}
        for block, entries in case["blocks"].items():
            assert blocks.measured(tmp_path / name / block) == entries
            assert blocks.advance(planned[block], CASES[name], None, tmp_path / name / block, case["epochs"], 0)
    assert to_json(record.collected(tmp_path, False)) == {"cases": results["cases"]}


def test_results_of_other_settings_are_not_taken_for_these(tmp_path):
    results = json.loads((record.RESULTS / "record.json").read_text())
    results["cases"]["mlp"]["settings"]["heavy"]["start"] = 0.2
    results["cases"]["mlp_small"]["epochs"] = 9
    results["cases"]["resnet20_small"]["recipe"] = to_json(CASES["resnet20_small"].recipe()) | {"batch_size": 64}
    results["cases"]["vit_small"]["recipe"]["rates"][-1] = 0.5
    record.restore(results, tmp_path)
    assert not [*tmp_path.glob("*/*")]


def test_results_without_a_recipe_are_those_of_today(tmp_path):
    """It was not written down before; a rate of another epoch is another recipe."""
    recipe = to_json(CASES["resnet20_small"].recipe())
    assert len(recipe["rates"]) == 20 and agree({"title": "t"}, {"title": "t", "recipe": recipe})
    assert not agree({"recipe": recipe | {"rates": recipe["rates"][:-1] + [0.5]}}, {"recipe": recipe})


def test_what_was_measured_here_is_not_replaced(tmp_path):
    results = json.loads((record.RESULTS / "record.json").read_text())
    file = tmp_path / "mlp" / "core_0" / blocks.MEASURED
    file.parent.mkdir(parents=True)
    file.write_text("[]")
    record.restore(results, tmp_path)
    assert file.read_text() == "[]" and blocks.measured(tmp_path / "mlp" / "core_1")


@pytest.mark.slow
def test_a_transformer_trains_and_is_drawn(tmp_path):
    name = "vit_small"
    rows = ("standard", "heavy_unit")
    case = dataclasses.replace(
        CASES[name], dataset="digits", stages=(1,), measured_at=(), batch_size=32, train_examples=64, held_out=48, mean=(0.3,), std=(0.3,),
        stride=1, augment="none", rows={row: CASES[name].rows[row] for row in rows}, core=rows,
    )  # fmt: skip
    (block,) = blocks.blocks(name, case, 1, 0)
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam
        assert blocks.advance(block, case, members.load(case), tmp_path, 1, math.inf)
    described = record.described(case)
    result = {"cases": {name: described | {"blocks": {block.name: blocks.measured(tmp_path)}}}}
    plain, anchored = (drawing.rows_at(result["cases"][name], 1)[row][0] for row in rows)
    assert plain["matching"]["units"] > 100 and plain["beta_mean"] is None and anchored["beta_mean"] > 0
    result["cases"]["begun"] = described | {"blocks": {"core_0": []}}  # nothing is measured of it yet
    record.figure(result, tmp_path / "figure.png")
    record.table(result)
    assert (tmp_path / "figure.png").stat().st_size > 1000


@pytest.mark.parametrize(("case", "full"), [("mlp", True), ("vit", False)])
def test_a_case_of_the_other_size_is_refused(case, full, tmp_path):
    with pytest.raises(UsageError, match="--full"):
        record.run(full, case=case, folder=tmp_path)
