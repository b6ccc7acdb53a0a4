"""All that README, docs and launch recipes show runs: the Python of a page from top to bottom, every command up to its options."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from tests.parameters import slow_but
from tests.project.snippets import PAGES, RECIPES, ROOT, blocks, calls
from tna_jax.io.errors import UsageError
from tna_jax.programs.cli import parsing
from tna_jax.programs.cli.catalog import PROGRAMS, options_of

BEFORE = {
    "docs/fusing.md": """
import jax, jax.numpy as jnp
from tna_jax import models
from tna_jax.networks import linen
network, init = linen(models.create("mlp", num_classes=3, depth=1, width=6), (5,))
members = jax.vmap(lambda key: init(key)[0])(jax.random.split(jax.random.key(0), 3))
a, b = (jax.tree.map(lambda leaf: leaf[i], members) for i in (0, 1))
params, inputs = a, jnp.ones((2, 5))
import optax
x, y = jax.random.normal(jax.random.key(1), (50, 5)), jnp.arange(50) % 3
held_out_accuracy = lambda params: float(network(params, inputs).argmax(-1).mean())
import numpy, pathlib
from tna_jax import io
pathlib.Path("runs/aligned").mkdir(parents=True)
order = {"Dense_0": numpy.arange(6)[::-1]}
vit, make = linen(models.create("vit", num_classes=3, patch=2, width=4, depth=1, heads=1, mlp=4), (4, 4, 1))
images, shapes = numpy.ones((2, 4, 4, 1), "float32"), jax.eval_shape(make, jax.random.key(0))[0]
drawn = [numpy.random.default_rng(seed) for seed in (0, 1)]
first, second = (jax.tree.map(lambda leaf: d.normal(size=leaf.shape).astype("float32"), shapes) for d in drawn)
io.save_permutations("runs/aligned/permutations.json", [io.StoredPermutation((0, 1), "weight", order)])
""",
    "docs/merging.md": """
import jax, jax.numpy as jnp, numpy as np
from tna_jax import models as zoo, trees
from tna_jax.networks import linen
network, init = linen(zoo.create("mlp", num_classes=3, depth=1, width=6), (5,))
base, *models = [init(key)[0] for key in jax.random.split(jax.random.key(0), 4)]
task_inputs = [jax.random.normal(jax.random.key(i), (8, 5)) for i in range(3)]
start, *tensors = [{trees.name(p): np.asarray(x) for p, x in trees.named_leaves(model)} for model in [base, *models]]
""",
    "docs/exported.md": """
from tests.tna_jax.programs.export import described
images, _ = described.write("model.safetensors", "mlp", (6, 5, 1), depth=1, width=4)
photos, _ = described.write("cnn.safetensors", "cnn", (20, 20, 3), norm="batch")
""",
    "docs/federated.md": """
import jax, jax.numpy as jnp
from tna_jax import models
from tna_jax.networks import linen
network, init = linen(models.create("mlp", num_classes=10, depth=1, width=6), (5,))
root = jax.random.key(0)
params, _ = init(root)
draw = lambda i: jax.random.normal(jax.random.fold_in(root, i), (8, 5))
clients = [(draw(i), jnp.arange(8) % 10) for i in range(3)]
""",
    "docs/runs.md": """
import equinox as eqx, flax.linen as nn, jax, jax.numpy as jnp
from flax import nnx
from tests.parameters import slow_but
import json
from tna_jax import io as saved
params = nn.Dense(3).init(jax.random.key(0), jnp.ones((1, 2)))["params"]
mask = {"kind": "exact", "ratio": 0.4, "seed": 0, "where": None, "soft": None}
saved.save("model.safetensors", {"params": params}, metadata={"tna_jax": json.dumps({"mask": mask})})
saved.save("any.safetensors", {"params": params}, metadata={})
class Layer(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((2, 3)))
class EquinoxLayer(eqx.Module):
    kernel: jax.Array
model = Layer()
saved.save("layer.safetensors", nnx.state(model, nnx.Param), metadata={})
""",
}
"""What the Python of a page takes from the reader's own program."""
RUNNING = [page for page in PAGES if blocks(page, "python")]
LONG = {("docs/flower.md", 0), ("docs/fusing.md", 4)}
"""Blocks that start a federation of processes, or compile a Transformer, for the slow suite; by page and number."""
EXTRAS = ("flwr", "grain", "array_record", "tokenizers", "torch", "transformers")
"""Packages of extras, without which a page's Python cannot run."""


@pytest.fixture(autouse=True)
def as_a_user_has_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("page", slow_but(["README.md", "docs/runs.md"], RUNNING))
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    values: dict = {}
    exec(compile(BEFORE.get(page, ""), f"before {page}", "exec"), values)
    shutil.copytree(ROOT / "tests" / "data" / "old_runs" / "train", "runs/four")  # the run of docs/start.md
    for i, code in enumerate(blocks(page, "python")):
        if page == "docs/runs.md" and "eqx.filter(model" in code:
            code = code.replace("eqx.filter(model", "eqx.filter(EquinoxLayer(jnp.ones((2, 3)))")
        if (page, i) not in LONG:
            execute(code, f"{page}, block {i}", values)


def execute(code: str, name: str, values: dict) -> None:
    """Runs a block; skips the test where an extra's package is missing."""
    try:
        exec(compile(code, name, "exec"), values)
    except (ModuleNotFoundError, UsageError) as error:
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        if not isinstance(missing, ModuleNotFoundError) or (missing.name or "").split(".")[0] not in EXTRAS:
            raise
        pytest.skip(f"needs {missing.name}")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("page", "number"), sorted(LONG))
def test_what_takes_long_runs_too(page, number, monkeypatch):
    values: dict = {}
    exec(compile(BEFORE.get(page, ""), f"before {page}", "exec"), values)
    monkeypatch.chdir(ROOT)
    execute(blocks(page, "python")[number], page, values)


CALLS = [(page, words) for page in (*PAGES, *RECIPES) for words in calls(page, "tna")]


@pytest.mark.parametrize(("page", "words"), CALLS, ids=[f"{page}: {' '.join(words)[:60]}" for page, words in CALLS])
def test_the_options_of_every_command_are_understood(page, words):
    if words[0].startswith("-"):
        assert words[0] in ("--version", "--help")
        return
    assert words[0] in PROGRAMS
    cls = options_of(words[0])
    if {"--help", "--help-all"} & set(words):
        return
    words = [
        part for word in words for part in (["a.safetensors", "b.safetensors"] if word == "*.safetensors" else [word])
    ]
    if "--config" in words:  # a file of the reader's own, in which anything may stand
        at = words.index("--config")
        words = words[:at] + words[at + 2 :]
    parsed = parsing.parse(cls, words[1:], words[0])
    if check := getattr(parsed, "check", None):
        check()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_found_from_the_docs_and_starts_something(recipe):
    assert f"../{recipe})" in (ROOT / "docs" / "many-devices.md").read_text()
    started = [words[0] for words in calls(recipe, "tna")]
    assert {"train", "resume"} <= set(started), started
    if not recipe.endswith(".md"):
        subprocess.run(["bash", "-n", str(ROOT / recipe)], check=True)
        assert "set -euo pipefail" in (ROOT / recipe).read_text()


def test_a_wrong_option_would_be_seen():
    with pytest.raises(UsageError):
        parsing.parse(options_of("lmc"), ["--ratio", "0.4"], "lmc")


TARGETS = sorted({words[0] for page in PAGES for words in calls(page, "make")})


@pytest.mark.parametrize("target", TARGETS)
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_commands_of_start_here_run_and_leave_what_they_say(capsys):
    from tna_jax.programs.cli.main import main

    for words in calls("docs/start.md", "tna"):
        assert main(words) == 0, f"tna {' '.join(words)}\n{capsys.readouterr().err}"
    rows = json.loads(Path("runs/first/lmc.json").read_text())["rows"]
    assert {row["ratio"] for row in rows} == {0.0, 0.4}
    for file in ("runs/first/lmc.png", "runs/four/barrier.json", "runs/four/fuse.json", "runs/back/barrier.json"):
        assert Path(file).stat().st_size > 0
