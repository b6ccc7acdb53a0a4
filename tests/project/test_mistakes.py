"""The ten likeliest mistakes, made: each is answered by a message that docs/troubleshooting.md quotes word for word."""

import builtins
import json
import pickle
import re
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import save_file

from tna_jax import anchored, backend, checks, connectivity, masks, tna_mask
from tna_jax.networks import Stateful
from tna_jax.programs.cli.launch import guarded
from tna_jax.programs.cli.main import main
from tna_jax.programs.population import compatibility
from tna_jax.programs.population.load import open_runs

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
QUOTED = [" ".join(block.split()) for block in re.findall(r"```text\n(.*?)```", PAGE.read_text(), re.S)]
PARAMS = {"dense": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}


def quoted(message: str) -> bool:
    """Whether the page quotes the message; `[...]` in the page stands for anything."""
    message = " ".join(message.split())
    patterns = [".*".join(map(re.escape, quote.split("[...]"))) for quote in QUOTED]
    return any(re.search(pattern, message) for pattern in patterns)


def refused(capsys, *words: str) -> str:
    assert main(list(words)) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def dtypes_as_optax_has_them():
    """Outside a compiled step optax mixes Python numbers with int32."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def mask():
    return masks.exact(jax.random.key(0), PARAMS, ratio=0.4)


def test_what_is_not_said_is_not_quoted():
    assert not quoted("ratio is the share of anchored entries and must lie in [0, 1], got 41; did you mean 0.41?")


def test_mask_first_with_weight_decay_is_found_before_training(mask):
    with pytest.raises(ValueError, match="moves anchored entries") as error:
        checks.anchors_stay(optax.chain(tna_mask(mask), optax.adamw(1e-3)), PARAMS, mask)
    assert quoted(str(error.value))
    for optimizer in (
        optax.adamw(1e-2, weight_decay=0.1),
        optax.lion(1e-2),
        optax.noisy_sgd(0.1, key=0),
        optax.lamb(0.1),
    ):
        checks.anchors_stay(anchored(optimizer, mask), PARAMS, mask)
    checks.anchors_stay(optax.chain(tna_mask(mask), optax.adam(0.1)), PARAMS, mask)  # the right use of a mask in front
    with pytest.raises(ValueError, match="dense/kernel"):
        checks.anchors_stay(optax.chain(tna_mask(mask), optax.noisy_sgd(0.1, key=0)), PARAMS, mask)


def test_an_optimizer_without_a_mask_is_found(mask):
    momentum = optax.sgd(0.1, momentum=0.9)
    whole = jax.tree.map(jnp.ones_like, mask)
    with pytest.raises(ValueError, match="moves anchored entries"):
        checks.anchors_stay(momentum, PARAMS, mask)
    checks.anchors_stay(momentum, PARAMS, whole)  # nothing is anchored
    checks.anchors_stay(anchored(momentum), PARAMS, mask, at_update=True)  # a mask passed at update


def test_soft_anchors_may_move(mask):
    soft = masks.soft(mask, 0.2)
    checks.anchors_stay(anchored(optax.adamw(0.1), soft), PARAMS, soft)
    hard = masks.soft(mask, 0.0)
    with pytest.raises(ValueError, match="dense/kernel"):
        checks.anchors_stay(optax.chain(tna_mask(hard), optax.adamw(0.1)), PARAMS, hard)


def test_an_inverted_mask_is_named(mask):
    even = masks.exact(jax.random.key(0), {"a": jnp.ones(10)}, 0.4)
    checks.mask_ratio(even, 0.4)
    with pytest.raises(ValueError, match="looks inverted") as error:
        checks.mask_ratio(masks.complement(even), 0.4)
    assert quoted(str(error.value))
    with pytest.raises(ValueError, match=r"anchors 40.0% of the entries, not 80.0%: was it drawn"):
        checks.mask_ratio(even, 0.8)


def test_batch_norm_without_calibration_is_refused(tmp_path, capsys):
    network = Stateful(lambda p, s, x, w: (x, s), lambda p, s, x: x)
    both = {"w": jnp.ones((2, 3))}
    with pytest.raises(ValueError, match="calibration") as error:
        connectivity.evaluate_paths(network, both, [[0, 1]], [0, 0.5, 1], {"test": (jnp.ones((2, 3)), jnp.zeros(2, int))},
                                   state={"m": jnp.ones((2, 3))})  # fmt: skip
    assert quoted(str(error.value))
    tensors = {f"state/batch_stats/BatchNorm_0/{name}": np.ones(3, np.float32) for name in ("mean", "var")}
    for name in ("a", "b"):
        save_file({**tensors, "params/w": np.ones(3, np.float32)}, tmp_path / f"{name}.safetensors")
    assert main(["merge", "a.safetensors", "b.safetensors", "-o", "m.safetensors"]) == 0
    assert quoted(capsys.readouterr().err)
    assert len(json.loads(Path("m.merge.json").read_text())["warnings"]) == 1


def model(**more) -> dict:
    return {"seed": 0, "ratio": 0.4, "method": "tna", "start": 0, "order": 0, **more}


def test_models_with_other_anchors_are_told(mask, capsys):
    compatibility.warn([model(), model(seed=1)], [{}, {}])
    assert quoted(capsys.readouterr().err)
    others = ((model(ratio=0.2), {}), (model(method="prune"), {}), (model(), {"where": "kernel"}), (model(ratio=0), {}))
    for other, config in others:
        assert "do not share their anchors" in compatibility.warnings([model(), other], [{}, config])[0]
    assert compatibility.warnings([model(order=i) for i in range(4)], [{}] * 4) == []
    assert compatibility.warnings([{"name": "imported"}, model()], [{}, {}]) == []
    a, b = PARAMS, jax.tree.map(lambda x: x + 1, PARAMS)
    kernels = [{"dense": {**one["dense"], "bias": PARAMS["dense"]["bias"]}} for one in (a, b)]
    with pytest.raises(ValueError, match="do not share their anchors") as error:
        checks.anchors_shared(kernels, mask)
    assert quoted(str(error.value))
    checks.anchors_shared([a, masks.share_anchors(b, a, mask)], mask)


def test_different_initial_values_are_told(capsys):
    for ratio in (0.4, 0):
        compatibility.warn([model(ratio=ratio), model(ratio=ratio, start=1)], [{}, {}])
        assert quoted(capsys.readouterr().err)
    assert compatibility.warnings([model(ratio=0), model(ratio=0, order=1)], [{}, {}]) == []


@pytest.mark.slow
def test_programs_say_it_and_results_keep_it(capsys):
    tiny = ["--width", "4", "--depth", "1", "--epochs", "1", "--members", "2"]
    assert main(["train", *tiny, "--out", "a"]) == 0
    capsys.readouterr()
    assert main(["barrier", "a", "--alphas", "3"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert json.loads(Path("a/barrier.json").read_text())["warnings"] == []
    plan = json.loads(Path("a/plan.json").read_text())
    plan["models"][1]["seed"] = 1
    Path("a/plan.json").write_text(json.dumps(plan))
    assert main(["barrier", "a", "--alphas", "3"]) == 0
    assert quoted(capsys.readouterr().err)
    assert "ratio 0.4 seed 1" in json.loads(Path("a/barrier.json").read_text())["warnings"][0]
    opened = open_runs(("a",), None)
    assert "ratio 0.4 seed 1" in opened.warnings[0]


def test_pickled_weights_are_not_opened(tmp_path, capsys, monkeypatch):
    with zipfile.ZipFile("a.pt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"w": 1}))
    Path("b.bin").write_bytes(pickle.dumps({"w": 1}))
    Path("folder").mkdir()
    Path("folder/pytorch_model.bin").write_bytes(pickle.dumps({"w": 1}))
    monkeypatch.setattr(pickle, "load", None)
    assert quoted(refused(capsys, "merge", "a.pt", "b.bin", "-o", "m.safetensors"))
    assert "pickled weights" in refused(capsys, "merge", "b.bin", "a.pt", "-o", "m.safetensors")
    assert "folder has neither" in (told := refused(capsys, "merge", "folder", "a.pt", "-o", "m.safetensors"))
    assert "but pytorch_model.bin: it holds pickled weights" in told
    assert "pickled weights" in refused(capsys, "import", "a.pt", "--out", "run")
    np.savez("c.npz", w=1)
    assert "it is a zip file" in refused(capsys, "merge", "c.npz", "a.pt", "-o", "m.safetensors")
    Path("d.safetensors").write_bytes(b"x" * 100)
    told = refused(capsys, "merge", "d.safetensors", "a.pt", "-o", "m.safetensors")
    assert "pickled" not in told.split("a.pt is")[0]


def test_a_wrong_data_folder_is_told_from_a_missing_one(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("TNA_DATA_DIR", raising=False)
    inner = Path("data/mnist-files")
    inner.mkdir(parents=True)
    (inner / "train-images-idx3-ubyte.gz").write_bytes(b"")
    told = refused(capsys, "train", "--dataset", "mnist", "--data-dir", str(inner))
    assert quoted(told.replace(f"{tmp_path}/", ""))
    Path("top/sets/mnist").mkdir(parents=True)
    told = refused(capsys, "train", "--dataset", "mnist", "--data-dir", "top")
    assert f"{tmp_path}/top/sets holds a folder mnist: name that one" in told
    assert "name" not in refused(capsys, "train", "--dataset", "mnist", "--data-dir", "nowhere").split("looked in")[0]


@pytest.mark.parametrize(("plugin", "gpu"), [(True, False), (True, True), (False, True)])
def test_a_gpu_that_is_not_used_is_told(plugin, gpu, monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(backend, "NVIDIA", tmp_path / ("nvidia0" if gpu else "none"))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: plugin or None)
    assert quoted("warning: " + backend.idle_gpu())
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert backend.idle_gpu() == ""


def test_a_machine_without_a_gpu_is_told_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(backend, "NVIDIA", tmp_path / "none")
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    assert backend.idle_gpu() == ""


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."), MemoryError()]
)
def test_out_of_memory_says_what_to_do(error, capsys):
    def run():
        raise error

    assert guarded("train", run) == 2
    assert quoted(capsys.readouterr().err)


def test_another_error_is_not_taken_for_it():
    def run():
        raise RuntimeError("INTERNAL: something else")

    with pytest.raises(RuntimeError, match="something else"):
        guarded("train", run)


def test_a_percentage_is_not_a_share(capsys):
    for draw in (masks.bernoulli, masks.exact, masks.neurons):
        with pytest.raises(ValueError, match="did you mean") as error:
            draw(jax.random.key(0), PARAMS, 40)
        assert quoted(str(error.value))
    assert quoted(refused(capsys, "train", "--ratio", "40"))
    assert refused(capsys, "lmc", "--ratios", "0", "40").endswith("got 40.0; did you mean 0.4?")
    assert "did you mean" not in refused(capsys, "train", "--ratio", "-1") + refused(capsys, "train", "--ratio", "400")


def test_every_quoted_message_is_one_of_these():
    assert len(QUOTED) == 16  # a new one needs its test
    assert builtins.len(re.findall(r"^## ", PAGE.read_text(), re.M)) == 10
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.M)[1:]:
        assert all(f"**{part}.**" in section for part in ("Symptom", "Cause", "Cure")), section.splitlines()[0]
