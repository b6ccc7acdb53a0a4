"""`tna export`: what the file says is enough to compute the same logits without this library, as the docs show; Hugging Face folders."""

import errno
import json
import os
from pathlib import Path
from tempfile import TemporaryFile

import jax
import numpy as np
import pytest

from tests.project.snippets import blocks
from tests.tna_jax.programs.commands import fails, read
from tests.tna_jax.programs.export import described
from tna_jax import hf, models, networks, trees
from tna_jax.io import safetensors
from tna_jax.programs import data
from tna_jax.programs.cli.main import main
from tna_jax.programs.export import run as export
from tna_jax.programs.training import model_description

NUMPY, PYTORCH = blocks("docs/exported.md", "python")


def run_of(folder: str, model: str, **options) -> None:
    """Writes a run of one network on digits with random values, that nobody trained."""
    network = models.create(model, num_classes=10, **options)
    _, init = networks.linen(network, (8, 8, 1))
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(init, jax.random.key(0))[0]
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    about = {"format": 1, "config": {"dataset": "digits", "model": model, **options}, "model": {}}
    safetensors.save(f"{folder}.safetensors", {"params": params}, {"tna_jax": json.dumps(about)})
    assert main(["import", f"{folder}.safetensors", "--out", folder]) == 0


def network_of(file: str) -> dict:
    return json.loads(safetensors.read(file)[1]["tna_jax"])["network"]


def test_an_exported_model_computes_the_same_in_numpy(tmp_path):
    run_of("mlp", "mlp", depth=2, width=6)
    assert main(["export", "mlp", "-o", "model.safetensors"]) == 0
    about = network_of("model.safetensors")
    assert (
        about["options"] == {"num_classes": 10, "depth": 2, "width": 6, "norm": "none", "dtype": None}
        and about["activation"] == "relu"
    )
    assert about["scaling"]["largest_pixel"] == 16 and about["classes"] == [str(i) for i in range(10)]
    assert about["layouts"]["kernel, 2 axes"].startswith("(in, out)") and about["computes"].startswith(
        "`depth` x (Dense, norm, ReLU)"
    )
    images = data.load("digits").test.images
    values = {"images": images}
    exec(NUMPY, values)
    network, _ = networks.linen(
        models.create("mlp", num_classes=10, depth=2, width=6), (8, 8, 1), data.load("digits").preprocess
    )
    arrays = safetensors.read("mlp.safetensors")[0]
    params: dict = {}
    for name, array in arrays.items():
        _, layer, leaf = name.split("/")
        params.setdefault(layer, {})[leaf] = array
    np.testing.assert_allclose(values["logits"](images), jax.jit(network)(params, images), rtol=1e-4, atol=1e-4)
    assert len(values["predicted"]) == len(images)
    exported, metadata = safetensors.read("model.safetensors")
    safetensors.write("other.safetensors", {name: array + 1 for name, array in exported.items()}, metadata)
    assert main(["merge", "model.safetensors", "other.safetensors", "-o", "merged.safetensors"]) == 0
    assert network_of("merged.safetensors") == about


@pytest.mark.slow
def test_an_exported_model_computes_the_same_in_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    photos, expected = described.write("cnn.safetensors", "cnn", (20, 21, 3), norm="batch")
    values = {"photos": photos}
    exec(PYTORCH, values)
    with torch.no_grad():
        found = values["logits"](torch.as_tensor(photos))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 0.1 and len(values["predicted"]) == 4


def test_every_network_describes_itself_as_create_takes_it():
    for name, shape in (
        ("cnn", (20, 20, 3)),
        ("vgg11", (32, 32, 3)),
        ("resnet20", (8, 8, 1)),
        ("wrn56_2", (8, 8, 1)),
        ("vit", (8, 8, 1)),
    ):
        module = models.create(name, num_classes=4)
        about = model_description.describe({"model": name}, described.data_of(shape), module)
        assert json.loads(json.dumps(about)) == about and about["computes"]
        options = {key: value for key, value in about["options"].items() if key in models.MODELS[name].options}
        assert models.create(name, **options) == module
        assert about["activation"] == ("gelu" if name == "vit" else "relu")


@pytest.mark.slow
def test_a_vit_becomes_a_hugging_face_folder(tmp_path, capsys):
    run_of("run", "vit", depth=1, width=8, heads=2, patch=4)
    assert main(["export", "run", "--format", "hf", "-o", "vit"]) == 0
    loaded = hf.load("vit")
    given = safetensors.read("run.safetensors")[0]
    for path, leaf in trees.named_leaves(loaded.params):
        assert np.asarray(leaf).tobytes() == given[f"params/{trees.name(path)}"].tobytes()
    config, scaling = read(Path("vit/config.json")), read(Path("vit/preprocessor_config.json"))
    assert config["id2label"] == {str(i): str(i) for i in range(10)} and config["image_size"] == 8
    assert scaling["rescale_factor"] == 1 / 16 and scaling["image_mean"] == [0.0]
    assert read(Path("vit/pretraining.json"))["network"]["model"] == "vit"
    assert "vit exists; name another one with -o, or add --overwrite" in fails(
        capsys, "export", "run", "--format", "hf", "-o", "vit"
    )
    assert main(["export", "run", "--format", "hf", "-o", "vit", "--overwrite"]) == 0


def test_a_run_that_may_only_be_read_is_exported_elsewhere(tmp_path, capsys, monkeypatch):
    run_of("mlp", "mlp", depth=1, width=3)

    def read_only(dir, **options):
        if Path(dir).name == "mlp":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return TemporaryFile(dir=dir, **options)

    with monkeypatch.context() as patch:
        patch.setattr(export.tempfile, "TemporaryFile", read_only)
        patch.setattr(export, "of_run", None)  # before anything is read
        for form, place, kind in (("safetensors", "model-0.safetensors", "FILE"), ("hf", "model-0", "FOLDER")):
            said = fails(capsys, "export", "mlp", "--format", form)
            assert said.endswith(f"cannot write mlp/{place}: Read-only file system; name another place with -o {kind}")
        patch.undo()
        patch.setattr(export.tempfile, "TemporaryFile", read_only)
        assert main(["export", "mlp", "-o", "elsewhere.safetensors"]) == 0


def test_what_cannot_be_written_is_refused_and_what_is_not_known_is_said(tmp_path, capsys):
    run_of("mlp", "mlp", depth=1, width=3)
    Path("mlp.json").write_bytes(Path("mlp/config.json").read_bytes())
    assert "--format hf: MLP has no Hugging Face form" in fails(capsys, "export", "mlp", "--format", "hf")
    Path("folder").mkdir()
    for changed in ({"width": 4}, {"epochs": -3}, {"batch_size": 0}):
        Path("mlp/config.json").write_text(json.dumps({**read(Path("mlp.json")), **changed}))
        said = fails(capsys, "export", "mlp", "-o", "other.safetensors")
        assert "mlp/config.json" in said and not Path("other.safetensors").exists()
        if "width" in changed:
            assert (
                "width 4" in said
                and "Dense_0/bias is [3], not [4]" in said
                and "Dense_0/kernel is [64, 3], not [64, 4]" in said
            )
        else:
            named = f"mlp/config.json: --{next(iter(changed)).replace('_', '-')} must be at least 1, got"
            assert named in said and named in fails(capsys, "barrier", "mlp")
    Path("mlp/config.json").write_bytes(Path("mlp.json").read_bytes())
    assert "--out must not be empty" in fails(capsys, "export", "mlp", "--out", "")
    assert "--overwrite does nothing without --out" in fails(capsys, "import", "mlp.safetensors", "--overwrite")
    assert "--out must not be empty" in fails(capsys, "import", "mlp.safetensors", "-o", "")
    assert "folder is a folder" in fails(capsys, "export", "mlp", "-o", "folder", "--overwrite")
    config = read(Path("mlp/config.json"))
    Path("mlp/config.json").write_text(json.dumps({**config, "dataset": "gone.npz"}))
    assert main(["export", "mlp", "-o", "bare.safetensors"]) == 0
    assert "warning: the data cannot be read" in capsys.readouterr().err
    assert "network" not in json.loads(safetensors.read("bare.safetensors")[1]["tna_jax"])
