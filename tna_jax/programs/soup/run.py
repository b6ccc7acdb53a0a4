"""`tna soup`: fine-tunes many recipes from one checkpoint, with and without anchors, and averages them into soups."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import finetuning as recipe_grid
from tna_jax import trees
from tna_jax.averaging import average_stacked
from tna_jax.hf import loading
from tna_jax.io.errors import UsageError
from tna_jax.io.formats import FORMAT
from tna_jax.io.json_files import to_json
from tna_jax.io.runs import BODY
from tna_jax.masks import AnchorRecipe, Mask, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli import checkpoint_names
from tna_jax.programs.cli.dataset_names import word
from tna_jax.programs.cli.messages import print_warning, wrote
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.population import fusion_methods
from tna_jax.programs.population.fusion_methods import Fusions
from tna_jax.programs.reports.present import present
from tna_jax.programs.reports.wording import frozen_text
from tna_jax.programs.runs.folder import PROVENANCE, Run
from tna_jax.programs.soup import data as soup_data
from tna_jax.programs.soup import inputs
from tna_jax.programs.soup import report as soup_report
from tna_jax.programs.soup.data import Material
from tna_jax.programs.soup.options import SoupOptions
from tna_jax.programs.system import distributed
from tna_jax.programs.training import backbone, ensembles, freezing, model_files
from tna_jax.programs.training.builders import finetuning_trainer
from tna_jax.programs.training.initial_models import InitialModels
from tna_jax.programs.training.setup import record, result_options

RESULTS = ("soup.json", "soup.png")
FUSED = "fused.json"
"""The populations that are fused already."""
EVALUATED = 4
"""Batches of the training that are evaluated at once: without gradients they take less memory than one with."""


def plan(settings: SoupOptions) -> list[recipe_grid.FinetuneConfig]:
    """Returns the recipes of a population."""
    images = not soup_data.is_text(settings.dataset)
    augmentations = settings.augmentations if images else (0.0,)
    lists = (settings.learning_rates, settings.weight_decays, settings.label_smoothings, augmentations)
    return recipe_grid.grid(*lists, count=settings.recipes)


class Group(NamedTuple):
    """A population to fuse: models of one start and one mask."""

    seed: int
    ratio: float | None
    """None where it is not known."""
    params: Params
    """(M, ...) on the host."""
    start: Params | None
    """What they were trained from."""
    mask: Mask | None


def run(settings: SoupOptions) -> dict[str, Any]:
    """Fine-tunes (or takes) the models and fuses them; writes `soup.json` and `soup.png`, returns what the JSON holds."""
    settings.check()
    count = settings.seeds * len(settings.ratios) * settings.recipes
    distributed.start(settings, len(settings.models) or count)
    hashes = model_files.hashes(settings.models or (settings.checkpoint or "",))
    material = soup_data.load(settings, settings.checkpoint or settings.models[0])
    prepared = None if settings.models else prepare(settings, material)
    given: list[Group] = []
    if settings.models:
        group, material = given_models(settings, material)
        given.append(group)
    standing = backbone.pretraining_record(settings.checkpoint or settings.models[0])
    settings = with_absolute_folders(material.recorded)
    name = f"soup-{word(settings.dataset)}"
    with Run.create(settings.out, name, (*RESULTS, FUSED), settings.overwrite, settings.resume) as folder:
        record(folder, "soup", settings, list(range(settings.seed, settings.seed + settings.seeds)), hashes)
        console.print(f"{'; '.join([material.what, *material.notes])}; on {standing['in_words']}")
        frozen = None if prepared is None else freezing.describe(material.backbone.params, settings.freeze)
        for line in frozen_text(frozen):
            console.print(line)
        facts: dict[str, Any] = {}
        groups = given
        if prepared is not None:
            console.print(f"{plural(count, 'model')} of {backbone.num_parameters(material.backbone.params):,} parameters: {plural(settings.seeds, 'seed')} x "
                          f"ratios {', '.join(f'{r:g}' for r in settings.ratios)} x {settings.recipes} recipes")  # fmt: skip
            trainer, start, described = prepared
            trained = ensembles.train(trainer, start, material, settings, folder, described, settings.resume)
            facts = {**trained.facts, "diverged": trained.diverged}
            groups = grouped(settings, start, trained.params)
        fused = fuse_all(groups, material, settings, folder)
        rows = [row for one in fused for row in one["rows"]]
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **facts},
            "config": result_options(settings),
            "stands_on": standing,
            "what": material.what,
            "parameters": backbone.num_parameters(material.backbone.params),
            "frozen": frozen,
            "recipes": [] if settings.models else [dataclasses.asdict(recipe) for recipe in plan(settings)],
            "shifted": material.shifted,
            "rows": rows,
            "by_count": [row for one in fused for row in one.get("by_count", [])],
            "greedy": [one["greedy"] for one in fused],
            "summary": soup_report.summary(rows),
        })  # fmt: skip
        result["headline"] = soup_report.headline(result)
        folder.write(RESULTS[0], result)
        if distributed.is_main_process():
            present(soup_report.describe(result), folder.folder / RESULTS[1])
            soups = (
                " and the greedy soups as Hugging Face folders" if any(folder.folder.glob("soup*/config.json")) else ""
            )
            files = f"{folder.folder / RESULTS[0]}, {RESULTS[1]}{soups}"
            wrote(files, "tna", "report", str(folder.folder))
        return result


def with_absolute_folders(settings: SoupOptions) -> SoupOptions:
    """Returns the options as a run records them: models by their absolute paths."""
    checkpoint = None if settings.checkpoint is None else checkpoint_names.absolute(settings.checkpoint)
    return dataclasses.replace(
        settings, checkpoint=checkpoint, models=tuple(map(checkpoint_names.absolute, settings.models))
    )


def prepare(settings: SoupOptions, material: Material) -> tuple[Any, InitialModels, list[dict[str, Any]]]:
    """The trainer, the models before training and what plan.json says of them: seeds x ratios x recipes."""
    images = not isinstance(material.train.images, np.ndarray) or material.train.images.ndim == 4
    trainer = finetuning_trainer(
        settings,
        material.backbone.network,
        len(material.train.labels),
        prepare=recipe_grid.augmented if images else None,
        loss=recipe_grid.smoothed,
    )
    recipes = plan(settings)
    backbone.require_finite(material.backbone.params["body"], settings.checkpoint or "")
    freezing.describe(material.backbone.params, settings.freeze)
    params, drawn, orders, described = [], [], [], []
    for seed in range(settings.seed, settings.seed + settings.seeds):
        fresh = material.backbone.fresh(stream(seed, Stream.RUN_INIT))
        for ratio in settings.ratios:
            recipe_of_anchors = AnchorRecipe(ratio=ratio, seed=seed, where=BODY, freeze=settings.freeze)
            mask = jax.tree.map(np.asarray, recipe_of_anchors.draw(fresh))
            for recipe in recipes:
                params.append(fresh)
                drawn.append(mask)
                orders.append(stream(seed, Stream.RUN_ORDER, recipe.seed))
                described.append({"seed": seed, "ratio": ratio, **dataclasses.asdict(recipe), "recipe": recipe.seed})

    def stack(trees: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)

    cells = settings.seeds * len(settings.ratios)
    return (
        trainer,
        InitialModels(stack(params), (), stack(drawn), jnp.stack(orders), recipe_grid.stack(recipes * cells)),
        described,
    )


def grouped(settings: SoupOptions, start: InitialModels, params: Params) -> list[Group]:
    """The trained models as populations of one seed and one ratio."""
    made = []
    for i in range(settings.seeds * len(settings.ratios)):
        part = slice(i * settings.recipes, (i + 1) * settings.recipes)
        own, begun, mask = jax.tree.map(lambda leaf, part=part: leaf[part], (params, start.params, start.mask))
        first = jax.tree.map(lambda leaf: leaf[0], (begun, mask))
        seed, ratio = divmod(i, len(settings.ratios))
        made.append(Group(settings.seed + seed, settings.ratios[ratio], own, *first))
    return made


def given_models(settings: SoupOptions, material: Material) -> tuple[Group, Material]:
    """Models of Hugging Face folders, and the material with what the first one says of its classes.

    Raises:
      UsageError: they are not of one network, or one of them cannot be averaged with the first.
    """
    folders, size = settings.models, getattr(material.backbone.module, "image_size", None)
    loaded = [loading.load(folder, head="classes", image_size=size) for folder in folders]
    wrong = [
        f"{folder} {problem}"
        for folder, other in zip(folders, loaded, strict=True)
        if (problem := inputs.of_another_network(other.module, material.backbone.module, folders[0], material.what))
    ]
    if wrong:
        raise UsageError(f"--models: {'; '.join(wrong)}")
    for folder, other in zip(folders, loaded, strict=True):
        backbone.require_finite(other.params, folder, "--models")
    inputs.require_alike(folders, [other.config for other in loaded])
    params = jax.tree.map(lambda *leaves: np.stack(leaves), *(other.params for other in loaded))
    made = dataclasses.replace(material.backbone, config=loaded[0].config)
    return Group(settings.seed, None, params, None, None), material._replace(backbone=made)


def fuse_all(groups: list[Group], material: Material, settings: SoupOptions, folder: Run) -> list[dict[str, Any]]:
    """Rows and greedy soup of every population. Each is kept as soon as it is there: a resumed run goes on with the next."""
    fused = _kept(folder, groups) if settings.resume and folder.has(FUSED) else []
    for group in groups[len(fused) :]:
        with console.status(f"fusing seed {group.seed}, ratio {group.ratio}: {len(fused)} of {len(groups)} done"):
            found = fuse_group(group, material, settings)
        about = {"seed": group.seed, "ratio": group.ratio}
        trail = [step._asdict() for step in found.recipe.trail]
        greedy = {**about, "score": found.recipe.score, "weights": found.recipe.weights, "trail": trail,
                  "anchors_moved": moved(group)}  # fmt: skip
        rows = [{**about, **row} for row in with_shift(fusion_methods.rows(found), material.shifted)]
        if distributed.is_main_process() and group.seed == settings.seed:
            _save(folder.folder, group, found, material)
        counted = [
            {**about, **row} for row in with_shift(fusion_methods.rows_by_count(found), material.shifted, "models")
        ]
        fused.append(to_json({"rows": rows, "greedy": greedy, "by_count": counted}))
        folder.write(FUSED, {"format": FORMAT, "groups": fused})
    return fused


def _kept(folder: Run, groups: list[Group]) -> list[dict[str, Any]]:
    """The populations that are fused already, if they are the first ones of these; what cannot be used is computed again."""
    try:
        found = folder.read(FUSED)["groups"]
        kept = [(one["greedy"]["seed"], one["greedy"]["ratio"]) for one in found if one["rows"]]
        if kept == [(group.seed, group.ratio) for group in groups[: len(found)]]:
            return list(found)
    except (KeyError, TypeError):
        pass
    print_warning(f"{folder.folder / FUSED} does not hold the first populations of this run: all are fused again")
    return []


def fuse_group(group: Group, material: Material, settings: SoupOptions) -> Fusions:
    """Best single model, soups and ensemble of a population, on every test set."""
    network, placement = material.backbone.network, settings.placement
    held = jnp.asarray(material.held_out.images), jnp.asarray(material.held_out.labels)
    size = EVALUATED * settings.batch_size
    mix = fusion_methods.mixtures(network, group.params, (), None, placement, size)
    ties = settings.ties
    return fusion_methods.fuse(
        network, group.params, material.tests, held, mix, ties=ties, placement=placement, batch_size=size
    )


def with_shift(rows: list[dict[str, Any]], shifted: tuple[str, ...], by: str = "fusion") -> list[dict[str, Any]]:
    """The rows, and for each fusion (or what else `by` tells apart) one more: the mean over all shifted sets."""
    made = list(rows)
    for name in dict.fromkeys(row[by] for row in rows) if shifted else ():
        parts = [row for row in rows if row[by] == name and row["split"] in shifted]
        means = {key: float(np.mean([row[key] for row in parts])) for key in ("accuracy", "loss")}
        made.append({by: name, "split": "shifted", "examples": parts[0]["examples"], **means})
    return made


def moved(group: Group) -> int | None:
    """How many anchored entries, of all models, have not the bits that they started with: must be 0."""
    if group.start is None or group.mask is None:
        return None
    total = 0
    leaves = zip(*map(jax.tree.leaves, (group.params, group.start, group.mask)), strict=True)
    for own, begun, mask in leaves:
        before = np.broadcast_to(np.asarray(begun)[None], own.shape)
        total += int((np.asarray(own).view(np.uint32) != before.view(np.uint32))[:, ~np.asarray(mask)].sum())
    return total


def _save(folder: Path, group: Group, found: Fusions, material: Material) -> None:
    """Writes the greedy soup of a population beside the results, in the form that the checkpoint had."""
    soup = average_stacked(group.params, found.recipe.weights)
    name = "soup" if group.ratio is None else f"soup-ratio-{group.ratio:g}"
    if trees.names_not_finite(soup):
        print_warning(f"{name} is not written: all models diverged")
        return
    material.backbone.save(folder / name, soup, overwrite=True)
