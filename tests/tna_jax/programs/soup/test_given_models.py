"""What `tna soup --models` averages: each model once, finite, and with the inputs and classes of the others."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tna_jax.programs.commands import fails, read
from tests.tna_jax.programs.conftest import write_vit
from tna_jax.io import safetensors
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.runs.folder import Run
from tna_jax.programs.soup import data as soup_data
from tna_jax.programs.soup import inputs
from tna_jax.programs.soup import run as soup
from tna_jax.programs.soup.options import SoupOptions
from tna_jax.programs.training import backbone, model_files, setup

SMALL = ["--dataset", "digits:0-4", "--held-out-examples", "20", "--test-examples", "20"]


def test_a_model_that_is_named_twice_is_refused_in_any_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(UsageError, match=r"named more than once: a = ./a = link; it would count twice"):
        SoupOptions(models=("a", "b", "./a", "link")).check()
    SoupOptions(models=("a", "b")).check()


def test_a_checkpoint_without_a_name_is_refused_and_not_the_folder_one_is_in(capsys):
    assert "--checkpoint must not be empty" in fails(capsys, "soup", "--checkpoint", "")
    assert "--checkpoint must not be empty" in fails(capsys, "cold", "--checkpoint", "")


def test_a_run_does_not_replace_the_one_that_holds_what_it_reads(tmp_path):
    out, model = str(tmp_path / "run"), str(tmp_path / "run" / "soup")
    for given in ({"models": (model, "other")}, {"checkpoint": model}, {"checkpoint": out}):
        with pytest.raises(UsageError, match="--overwrite would replace --out .*run, which holds .*: name another"):
            SoupOptions(out=out, overwrite=True, **given).check()
        SoupOptions(out=out, **given).check()
    SoupOptions(out=out, overwrite=True, checkpoint=str(tmp_path / "run-2")).check()


def test_a_model_folder_is_no_run_that_could_be_replaced(tmp_path):
    """Both have a config.json."""
    write_vit(tmp_path / "model")
    before = {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    for overwrite, resume in ((False, False), (True, False), (False, True)):
        with pytest.raises(UsageError, match=r"model is not a run folder: its config.json is that of something else"):
            Run.create(str(tmp_path / "model"), "soup", (), overwrite, resume)
    assert {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before


def test_a_model_that_is_not_finite_is_refused_by_name(tmp_path, capsys):
    for name in ("a", "b"):
        write_vit(tmp_path / name)
    file = tmp_path / "b" / "model.safetensors"
    arrays, about = safetensors.read(file)
    name = next(name for name in arrays if name.endswith("query.weight"))
    safetensors.write(file, {**arrays, name: np.full_like(arrays[name], np.nan)}, about)
    said = fails(capsys, "soup", "--models", str(tmp_path / "a"), str(tmp_path / "b"), *SMALL)
    assert f"--models {tmp_path / 'b'} holds values that are not finite: body/layer_0/query/kernel" in said
    said = fails(capsys, "soup", "--checkpoint", str(tmp_path / "b"), *SMALL)
    assert f"--checkpoint {tmp_path / 'b'} holds values that are not finite: layer_0/query/kernel" in said


def test_models_of_other_networks_are_refused_by_what_differs(tmp_path, capsys):
    for name in ("a", "b", "c"):
        write_vit(tmp_path / name)
    for name, change in (("b", {"layer_norm_eps": 1e-3}), ("c", {"hidden_act": "relu"})):
        file = tmp_path / name / "config.json"
        file.write_text(json.dumps(read(file) | change))
    a, b, c = (str(tmp_path / name) for name in "abc")
    said = fails(capsys, "soup", "--models", a, b, c, *SMALL)
    assert f"{b} is another network than {a}: eps 0.001 instead of 1e-12; {c} is another" in said
    said = fails(capsys, "soup", "--models", a, b, "--dataset", "digits", *SMALL[2:])
    assert f"--models: {a} has 5 classes, the data 10 (digits" in said


def test_models_of_other_inputs_or_classes_are_refused_by_what_differs(tmp_path):
    for name, mean in (("a", 0.5), ("b", 0.5), ("c", 0.1)):
        (tmp_path / name).mkdir()
        scale = {"image_mean": [mean], "image_std": [0.5]}
        (tmp_path / name / backbone.IMAGES).write_text(json.dumps(scale))
    (tmp_path / "d").mkdir()  # says nothing of its images
    a, b, c, d = (str(tmp_path / name) for name in "abcd")
    named = {"id2label": {"0": "cat", "1": "dog"}}
    inputs.require_alike((a, b, d), [named, {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, {}])
    with pytest.raises(UsageError, match=rf"{c} has another scaling of images than {a} \(\[\[0.1\], \[0.5\]\] instead"):
        inputs.require_alike((a, b, c), [named, named, named])
    with pytest.raises(UsageError, match=rf"{b} has another order of classes than {a}"):
        inputs.require_alike((a, b), [named, {"id2label": {"0": "dog", "1": "cat"}}])


def test_a_soup_keeps_the_names_of_classes_of_given_models_and_not_those_of_a_head_that_is_replaced(tmp_path):
    names = {str(i): name for i, name in enumerate(("cat", "dog", "cow", "hen", "ant"))}
    for folder in ("a", "b"):
        write_vit(tmp_path / folder)
        file = tmp_path / folder / "config.json"
        file.write_text(json.dumps(read(file) | {"id2label": names}))
    settings = SoupOptions(
        models=(str(tmp_path / "a"), str(tmp_path / "b")), dataset="digits:0-4", held_out_examples=20
    )
    fresh = soup_data.load(settings, settings.models[0])
    group, given = soup.given_models(settings, fresh)
    for material, name, expected in (
        (fresh, "fresh", [f"LABEL_{i}" for i in range(5)]),
        (given, "given", list(names.values())),
    ):
        material.backbone.save(tmp_path / name, jax.tree.map(lambda leaf: leaf[0], group.params))
        assert list(read(tmp_path / name / "config.json")["id2label"].values()) == expected


def test_models_of_other_tokens_are_refused(tmp_path):
    pytest.importorskip("tokenizers", reason="needs the extra hf")
    from tna_jax.hf import tokenizer

    for name, text in (("a", "good bad film plot"), ("b", "good bad film plot"), ("c", "who where city man")):
        tokenizer.train([text], 40).save(tmp_path / name)
    a, b, c = (str(tmp_path / name) for name in "abc")
    inputs.require_alike((a, b), [{}, {}])
    with pytest.raises(UsageError, match=rf"{c} has other tokens than {a}"):
        inputs.require_alike((a, b, c), [{}, {}, {}])


def test_a_model_that_diverged_is_no_ingredient_even_where_nothing_is_right():
    """Its accuracy of 0 would tie with that of a model which is wrong on all held-out examples."""
    members = {"w": jnp.array([[0.0, 1.0], [jnp.nan, 1.0]])}

    def network(params, x):
        return x * params["w"]

    x, wrong = jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)  # class 1 is what the first model says of all
    mix = fusion_methods.mixtures(network, members, (), None, "map")
    with jax.numpy_rank_promotion("allow"):
        found = fusion_methods.fuse(network, members, {"test": (x, wrong)}, (x, wrong), mix, placement="map")
    assert found.recipe.weights.tolist() == [1, 0] and found.recipe.score == 0
    table = {row["fusion"]: row for row in fusion_methods.rows(found)}  # warnings are errors here
    assert np.isfinite(table["greedy soup"]["loss"]) and not np.isfinite(table["uniform soup"]["loss"])


def test_models_go_with_the_run_that_made_them(tmp_path):
    out = str(tmp_path / "run")
    with Run.create(out, "soup", (), False, False) as run:
        run.write("config.json", {"program": "soup"})
        for name in ("soup-ratio-0.5", "body-ratio-0.4", "soup"):
            (run.folder / name).mkdir()
            (run.folder / name / "model.safetensors").touch()
        (run.folder / "soup-ratio-notes").mkdir()  # holds no model: not ours
    with Run.create(out, "soup", (), True, False) as run:
        assert [path.name for path in run.folder.iterdir() if path.is_dir()] == ["soup-ratio-notes"]


def test_folders_are_recorded_by_their_places_and_runs_of_before_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = SoupOptions(models=("a", "b"), out="run")
    with Run.create("run", "soup", (), False, False) as run:
        setup.record(run, "soup", given, [0])  # as runs of before did
        setup.record(
            run, "soup", soup.with_absolute_folders(SoupOptions(models=("a", "b"), out="run", resume=True)), [0]
        )
        with pytest.raises(UsageError, match="models was"):
            setup.record(
                run, "soup", soup.with_absolute_folders(SoupOptions(models=("a", "c"), out="run", resume=True)), [0]
            )
    assert soup.with_absolute_folders(given).models == (str(Path("a").resolve()), str(Path("b").resolve()))
    assert soup.with_absolute_folders(SoupOptions(checkpoint="minilm")).checkpoint == "minilm"


def test_data_without_a_name_are_not_the_folder_one_is_in(capsys):
    assert "--dataset must not be empty" in fails(capsys, "soup", "--checkpoint", "x", "--dataset", "")
    assert "--tasks must not be empty" in fails(capsys, "cold", "--checkpoint", "x", "--tasks", "mr", "")


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        ({}, 0),
        ({"groups": [{"rows": [1]}]}, 0),
        ({"groups": [{"rows": [1], "greedy": {"seed": 3, "ratio": 0.5}}]}, 0),
        ({"groups": [{"rows": [1], "greedy": {"seed": 0, "ratio": 0.5}}]}, 1),
    ],
)
def test_what_is_fused_already_is_kept_if_it_is_of_this_run(held, kept, tmp_path, capsys):
    groups = [soup.Group(seed, 0.5, {}, None, None) for seed in (0, 1)]
    with Run.create(str(tmp_path / "run"), "soup", (), False, False) as run:
        run.write(soup.FUSED, {"format": FORMAT, **held})
        assert len(soup._kept(run, groups)) == kept
    assert ("all are fused again" in " ".join(capsys.readouterr().err.split())) == (not kept)


def test_a_run_goes_on_only_with_the_models_that_it_was_started_from(tmp_path):
    """A model that was trained on has files of the same sizes and headers."""
    for name in ("a", "b"):
        write_vit(tmp_path / name)
    (tmp_path / "a" / "preprocessor_config.json").write_text("{}")
    settings = SoupOptions(models=(str(tmp_path / "a"), str(tmp_path / "b")), out="run")
    weights = tmp_path / "b" / "model.safetensors"
    before = weights.read_bytes()
    with Run.create(str(tmp_path / "run"), "soup", (), False, False) as run:

        def record(resume: bool) -> None:
            given = dataclasses.replace(settings, resume=resume)
            setup.record(run, "soup", given, [0], model_files.hashes(given.models))

        record(resume=False)
        (tmp_path / "a" / "README.md").write_text("words")
        record(resume=True)
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        (tmp_path / "a" / "preprocessor_config.json").unlink()
        (tmp_path / "a" / "tokenizer.json").write_text("{}")
        said = f"started from: {tmp_path}/a/preprocessor_config.json is gone; {tmp_path}/a/tokenizer.json is new; {weights} has changed; put"
        with pytest.raises(UsageError, match=said):
            record(resume=True)
        run.write("config.json", {name: value for name, value in run.read("config.json").items() if name != "files"})
        record(resume=True)  # a run of before, which did not look


def test_more_texts_than_there_are_and_columns_of_known_sets_are_refused(home):
    bert = str(home / "drawn")

    def load(**options) -> soup_data.Material:
        given = SoupOptions(checkpoint=bert, dataset="trec", data_dir=str(home / "data"), length=8, **options)
        return soup_data.load(given, bert)

    with pytest.raises(UsageError) as refused:
        load(held_out_examples=500, train_examples=200, test_examples=121)
    assert str(refused.value) == (
        "--train-examples 200: TREC has 108 training texts; --test-examples 121: TREC has 120 test texts; "
        "--held-out-examples 500: TREC has 12 validation texts"
    )
    with pytest.raises(UsageError, match="--target does nothing for trec, a known set: it is for data of your own"):
        load(target="topic")
    material = load()  # the usual number: all there are
    assert len(material.held_out.labels) == 12 and "12 held-out" in material.what
    assert len(load(resume=True, out="run", target="topic", held_out_examples=500).held_out.labels) == 12


def test_values_that_no_recipe_takes_are_refused():
    def check(**options) -> None:
        SoupOptions(checkpoint="x", **options).check()

    with pytest.raises(UsageError) as refused:
        check(recipes=2, learning_rates=(1e-3, 3e-4, 1e-4), augmentations=(0.1, 0.9))
    assert str(refused.value) == (
        "--learning-rates: no recipe takes 0.0001: from --recipes 3 on one does; --augmentations: no recipe takes 0.9: from --recipes 13 "
        "on one does (they are taken in turn from each list, the first list the fastest)"
    )
    for taken, recipes in ((True, 13), (False, 12)):
        given = {"recipes": recipes, "learning_rates": (1e-3, 3e-4, 1e-4), "augmentations": (0.1, 0.9)}
        found = {recipe.augmentation for recipe in soup.plan(SoupOptions(checkpoint="x", **given))}
        assert (0.9 in found) is taken
        if taken:
            check(**given)
        else:
            with pytest.raises(UsageError, match=r"--augmentations: no recipe takes 0\.9: from --recipes 13"):
                check(**given)
    check(recipes=2)  # of the usual values some are left aside
