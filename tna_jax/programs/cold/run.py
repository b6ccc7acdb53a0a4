"""`tna cold`: ColD Fusion: text tasks fine-tune one encoder each for itself, their bodies are averaged, again and again."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import ensemble, finetuning
from tna_jax import placement as placement_lib
from tna_jax.ensemble import Trainer
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.io.runs import BODY
from tna_jax.masks import AnchorRecipe, Mask, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli import checkpoint_names
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.progress import Interrupted, PhaseBar, console, stoppable
from tna_jax.programs.cold import report as cold_report
from tna_jax.programs.cold import scores as cold_scores
from tna_jax.programs.cold import tasks as cold_tasks
from tna_jax.programs.cold.contributions import Contribution, accepted, average
from tna_jax.programs.cold.options import ColdOptions
from tna_jax.programs.cold.scores import Body, Watch
from tna_jax.programs.cold.tasks import Task, drawn, shut, shut_mask
from tna_jax.programs.reports.present import present
from tna_jax.programs.reports.statistics import or_none
from tna_jax.programs.reports.wording import frozen_text
from tna_jax.programs.runs.checkpoints import Checkpoints
from tna_jax.programs.runs.folder import METRICS, PROVENANCE, Run
from tna_jax.programs.runs.restore import restore
from tna_jax.programs.system import distributed, memory
from tna_jax.programs.training import backbone, freezing, model_files
from tna_jax.programs.training.backbone import Backbone
from tna_jax.programs.training.builders import finetuning_trainer, transformer_fields
from tna_jax.programs.training.setup import record, result_options

RESULTS = ("cold.json", "cold.png")
WAVE = memory.GB
"""Bytes of models beyond which more at once train no faster on a CPU."""


class Variant(NamedTuple):
    """One repetition of the whole fusion at one mask ratio."""

    seed: int
    ratio: float


class Fusion(NamedTuple):
    """What the iterations need."""

    backbone: Backbone
    tasks: list[Task]
    """All, contributors first."""
    variants: list[Variant]
    trainer: Trainer
    scorer: Trainer
    settings: Any
    """The options, with `at_once`: how many models train at the same time."""

    @property
    def contributors(self) -> list[Task]:
        """The tasks that train."""
        return [task for task in self.tasks if task.seen]


class AtOnce:
    """Options and how many models fit the memory at once."""

    def __init__(self, settings: ColdOptions, at_once: int):
        self.settings, self.at_once = settings, at_once

    def __getattr__(self, name: str) -> Any:
        return getattr(self.settings, name)


def run(settings: ColdOptions) -> dict[str, Any]:
    """Runs all iterations and scores, or goes on with them; writes `cold.json` and `cold.png`, returns what the JSON holds."""
    settings.check()
    variants = [Variant(settings.seed + seed, ratio) for seed in range(settings.seeds) for ratio in settings.ratios]
    distributed.start(settings, len(variants) * len(settings.tasks))
    hashes = model_files.hashes((settings.checkpoint or "",))
    fusion, facts = prepare(settings, variants)
    settings = dataclasses.replace(
        cold_tasks.recorded(settings, fusion.tasks), checkpoint=checkpoint_names.absolute(settings.checkpoint or "")
    )
    standing = backbone.pretraining_record(settings.checkpoint or "")
    with Run.create(settings.out, "cold", RESULTS, settings.overwrite, settings.resume) as folder:
        record(folder, "cold", settings, sorted({variant.seed for variant in variants}), hashes)
        folder.write_plan([variant._asdict() for variant in variants], fusion.settings.at_once)
        console.print(f"on {standing['in_words']}")
        console.print(f"{len(variants)} fusions (seeds x ratios) of {len(fusion.contributors)} contributors: "
                      f"{', '.join(task.title for task in fusion.contributors)}; unseen: "
                      f"{', '.join(task.title for task in fusion.tasks if not task.seen) or 'none'}")  # fmt: skip
        for note in (note for task in fusion.tasks for note in task.notes):
            console.print(note)
        frozen = freezing.describe(fusion.backbone.params, settings.freeze)
        for line in frozen_text(frozen):
            console.print(line)
        params = iterate(fusion, folder, settings)
        logged = read_log(folder, settings.iterations + 1)
        rows = [row for line in logged for row in line["rows"]]
        contributors = [row for line in logged for row in line.get("contributors", [])]
        result: dict[str, Any] = to_json({
            "provenance": {**folder.read(PROVENANCE), **facts, "peak_bytes": memory.peak()},
            "config": result_options(settings),
            "stands_on": standing,
            "parameters": backbone.num_parameters(fusion.backbone.params),
            "frozen": frozen,
            "tasks": [{"name": task.name, "title": task.title, "seen": task.seen, "classes": task.num_classes,
                       "train": len(task.train[1]), "test": len(task.test[1]), "split": task.how_split}
                      for task in fusion.tasks],
            "rows": rows,
            "contributors": contributors,
            "anchors_moved": sum(line["anchors_moved"] for line in logged),
            "summary": cold_report.summary(rows),
        })  # fmt: skip
        result["headline"] = cold_report.headline(result)
        for i, variant in enumerate(variants):
            if variant.seed == settings.seed:
                _save(
                    fusion,
                    {"body": jax.tree.map(lambda leaf, i=i: leaf[i], params["body"])},
                    folder.folder / f"body-ratio-{variant.ratio:g}",
                )
        folder.write(RESULTS[0], result)
        present(cold_report.describe(result), folder.folder / RESULTS[1])
        files = f"{folder.folder / RESULTS[0]}, {RESULTS[1]} and the fused bodies as Hugging Face folders"
        wrote(files, "tna", "report", str(folder.folder))
        return result


def prepare(settings: ColdOptions, variants: list[Variant]) -> tuple[Fusion, dict[str, Any]]:
    """Data, network and trainers; all that can be refused is refused here. Also what is predicted of the memory."""
    assert settings.checkpoint is not None
    tasks = cold_tasks.load((*settings.tasks, *settings.unseen), settings.tasks, settings)
    classes = max(task.num_classes for task in tasks)
    made = backbone.for_text(settings.checkpoint, settings.length, classes, **transformer_fields(settings))
    backbone.require_finite(made.params["body"], settings.checkpoint)
    freezing.describe(made.params, settings.freeze)
    freezing.require_live(made.params, settings.freeze, backbone.is_body)
    trainer = finetuning_trainer(settings, made.network, settings.examples)
    scorer = finetuning_trainer(settings, made.network, settings.score_examples, settings.score_epochs)
    count = len(variants) * len(tasks)  # that many train for the scores; in an iteration the contributors do
    one = _shapes(made, trainer, tasks[0], settings.examples)
    tokens, labels = one.member_data
    placement = placement_lib.resolve(trainer.placement, made.network, one.params, tokens)
    each = memory.estimate(trainer, one, tokens, labels)
    each = each._replace(kept=each.kept + each.common, common=0)  # each has its own data
    room, before = memory.available(settings.memory_limit), memory.resident()
    resolved = dataclasses.replace(trainer, placement=placement)
    host = host_bytes(one.params, len(variants), len(settings.tasks))
    most = wave_limit(count, each, placement)
    at_once, predicted = memory.plan_waves(resolved, one, most, copied_once(each), None, None, room, host)
    facts = {"placement": placement, "models_at_once": at_once, "predicted_bytes": predicted, "resident_bytes_before": before,
             "predicted_bytes_per_model": {"kept": each.kept, "working": each.working}}  # fmt: skip
    memory.print_estimate(predicted, host.saving, before)
    if at_once < most:
        console.print(f"{count} models do not fit into {room / memory.GB:.3g} GB at once: waves of up to {at_once}")
    return Fusion(made, tasks, variants, trainer, scorer, AtOnce(settings, at_once)), facts


def host_bytes(params: Params, variants: int, contributors: int) -> memory.Host:
    """Computes what the CPU's memory holds beside the models that train: bodies before and after an iteration, and masks, of every
    variant, the bodies of a variant's contributors that wait for the last one, and what a checkpoint takes while it is written."""
    body, head = memory.size(params["body"]), memory.size(params["head"])
    stored = variants * (body + contributors * head)
    return memory.Host(2 * stored + variants * body // 4 + contributors * body, memory.SAVING * stored)


def copied_once(each: memory.Estimate) -> memory.Estimate:
    """Returns the estimate of a model of which a CPU holds a copy while it trains."""
    return each._replace(kept=2 * each.kept) if jax.default_backend() == "cpu" else each


def wave_limit(count: int, each: memory.Estimate, placement: str) -> int:
    """Returns how many of `count` models are worth having in memory at once, a multiple of the devices.

    On a CPU a device trains its models one after the other (unless under `vmap`): more of them gain nothing beyond a few large ones.
    """
    if placement == "vmap" or jax.default_backend() != "cpu":
        return count
    devices = jax.device_count()
    return min(count, max(devices, int(WAVE / each.kept) // devices * devices))


def _shapes(made: Backbone, trainer: Trainer, task: Task, examples: int) -> ensemble.Members:
    hyper: Any = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in finetuning.STACKED}
    params = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), made.params)
    mask = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, bool), params)
    state = jax.eval_shape(trainer.init_optimizer, params, mask, hyper)
    own = (
        jax.ShapeDtypeStruct((examples, *task.train[0].shape[1:]), jnp.int32),
        jax.ShapeDtypeStruct((examples,), jnp.int32),
    )
    return ensemble.Members(params, mask, state, jax.random.key(0), hyper, (), own)


def begin(fusion: Fusion) -> Params:
    """Returns the start of the first iteration: (V, ...) the checkpoint's body, (V, K, ...) a fresh head for each task."""
    bodies, heads = [], []
    for variant in fusion.variants:
        bodies.append(fusion.backbone.fresh(stream(variant.seed, Stream.RUN_INIT))["body"])
        for k, task in enumerate(fusion.contributors):
            head = fusion.backbone.fresh(stream(variant.seed, Stream.RUN_INIT, 1 + k))["head"]
            heads.append(shut({"head": head}, task.num_classes)["head"])
    by_variant = (len(fusion.variants), len(fusion.contributors))
    stacked = _stack(heads)
    return {
        "body": _stack(bodies),
        "head": jax.tree.map(lambda leaf: leaf.reshape(*by_variant, *leaf.shape[1:]), stacked),
    }


def _stack(trees: list[Params]) -> Params:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def iterate(fusion: Fusion, folder: Run, settings: ColdOptions) -> Params:
    """All iterations that are left, each followed by its scores and a checkpoint; returns bodies (V, ...) and heads (V, K, ...)."""
    tree = {"params": begin(fusion)}
    done, tree = restore(folder.checkpoints, tree) if settings.resume else (0, tree)
    folder.keep_logged(done)
    read_log(folder, done)
    often = (settings.checkpoint_minutes, settings.checkpoint_every, settings.checkpoints_kept)
    with Checkpoints(folder.checkpoints, *often) as saved, stoppable() as stop, PhaseBar() as bar:

        def on_step(units: int) -> None:
            bar.advance(units)
            if stop.asked:
                console.print(f"stopped; saved up to iteration {done - 1}; to resume: tna resume {folder.quoted_path}"
                              if done else f"stopped before anything was saved; to start: tna resume {folder.quoted_path}")  # fmt: skip
                raise Interrupted

        while done <= settings.iterations:
            moved, contributors = 0, list[dict[str, Any]]()
            watch = Watch(f"iteration {done} of {settings.iterations}", bar.phase, on_step)
            if done:
                params, moved, contributors = train_and_fuse(fusion, tree["params"], done - 1, watch)
                tree = {"params": params}
            rows = score(fusion, tree["params"], done, watch)
            folder.log(step=done, rows=rows, contributors=contributors, anchors_moved=moved)
            done += 1
            saved.save(done, tree)
            saved.wait()
            console.print(cold_report.progress_line(rows, done - 1))
    return tree["params"]


def read_log(folder: Run, done: int) -> list[dict[str, Any]]:
    """Reads what was logged of the iterations below `done`, 0 the start; raises UsageError where one is missing: results are made of it."""
    file = folder.folder / METRICS
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    if missing := sorted(set(range(done)) - {line["step"] for line in lines}):
        raise UsageError(
            f"{file} lacks iteration {', '.join(map(str, missing))}, whose scores stand nowhere else: put it back, or start again "
            "with --overwrite"
        )
    return lines


def train_and_fuse(
    fusion: Fusion, params: Params, number: int, watch: Watch
) -> tuple[Params, int, list[dict[str, Any]]]:
    """One iteration of every variant: mask, training of all contributors, fusion.

    Returns:
      Bodies (V, ...) and heads (V, K, ...); of contributors that are left out the head stays as it was.
      How many anchored entries moved: 0.
      What cold.json holds of the contributors.
    """
    jobs = [
        (v, variant, k, task) for v, variant in enumerate(fusion.variants) for k, task in enumerate(fusion.contributors)
    ]
    masks = [_mask(fusion, params, variant, number) for variant in fusion.variants]
    heads = jax.tree.map(np.array, params["head"])
    waiting: list[Contribution] = []  # of a variant until all its contributors are there
    records: list[dict[str, Any]] = []
    fused: list[Params] = []
    watch.begin("training", len(jobs) * fusion.settings.epochs, "contributors x epochs")
    for first in range(0, len(jobs), fusion.settings.at_once):
        part = jobs[first : first + fusion.settings.at_once]
        members = _members(fusion, params, masks, part, number)
        done = functools.partial(watch.epoch, len(part))
        members, by_epoch = ensemble.train_ensemble(
            fusion.trainer, members, None, None, fusion.settings.epochs, on_epoch=done
        )
        trained, losses = placement_lib.to_host(members.params), np.asarray(by_epoch[-1].loss)
        for i, (v, variant, k, task) in enumerate(part):
            body, head = (jax.tree.map(lambda leaf, i=i: np.array(leaf[i]), trained[name]) for name in ("body", "head"))
            waiting.append(Contribution(task.name, body, head, float(losses[i])))
            if k + 1 < len(fusion.contributors):
                continue
            where = f"ratio {variant.ratio:g}, seed {variant.seed}, iteration {number + 1}"
            kept = accepted(waiting, where, fusion.settings.average_diverged)
            records += [each.record(variant._asdict(), number + 1) for each in waiting]
            for j in kept:
                jax.tree.map(lambda leaf, new, at=(v, j): leaf.__setitem__(at, new), heads, waiting[j].head)
            bodies = [waiting[j].body for j in kept]
            fused.append(average(bodies) if kept else jax.tree.map(lambda leaf, v=v: np.array(leaf[v]), params["body"]))
            waiting = []
    made = {"body": _stack(fused), "head": heads}
    moved = sum(_moved(mask["body"], params["body"], made["body"], v) for v, mask in enumerate(masks))
    return made, moved, records


def _mask(fusion: Fusion, params: Params, variant: Variant, number: int) -> Mask:
    """Returns the mask of a variant's contributors in iteration `number`."""
    one = {
        part: jax.tree.map(lambda x, n=axes: jax.ShapeDtypeStruct(x.shape[n:], x.dtype), params[part])
        for part, axes in (("body", 1), ("head", 2))
    }
    recipe = AnchorRecipe(ratio=variant.ratio, seed=variant.seed, where=BODY, freeze=fusion.settings.freeze)
    return jax.tree.map(np.asarray, recipe.draw(one, jax.random.fold_in(recipe.key, number)))


def _moved(mask: Mask, before: Params, after: Params, v: int) -> int:
    """Counts anchored entries of a variant's fused body whose bits have changed."""
    leaves = zip(*map(jax.tree.leaves, (mask, before, after)), strict=True)
    return sum(int((old[v].view(np.uint32) != new[v].view(np.uint32))[~kept].sum()) for kept, old, new in leaves)


def _members(fusion: Fusion, params: Params, masks: list[Mask], jobs: Any, number: int) -> ensemble.Members:
    settings = fusion.settings
    own, orders, drawn_masks = [], [], []
    for v, variant, k, task in jobs:
        key = stream(variant.seed, Stream.RUN_DATA, number * len(fusion.tasks) + k)
        own.append(drawn(key, task, settings.examples))
        orders.append(stream(variant.seed, Stream.RUN_ORDER, number * len(fusion.tasks) + k))
        drawn_masks.append(shut_mask(masks[v], task.num_classes))
    at = np.array([v for v, *_ in jobs]), np.array([k for _, _, k, _ in jobs])
    chosen = {
        "body": jax.tree.map(lambda leaf: leaf[at[0]], params["body"]),
        "head": jax.tree.map(lambda leaf: leaf[at], params["head"]),
    }
    recipe = finetuning.FinetuneConfig(settings.learning_rate, settings.weight_decay)
    stacked, held = (jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)
                     for trees in (drawn_masks, own))  # fmt: skip
    hyper = finetuning.stack([recipe] * len(jobs))
    return ensemble.init_ensemble(fusion.trainer, chosen, jnp.stack(orders), stacked, hyper, member_data=held)


def score(fusion: Fusion, params: Params, number: int, watch: Watch) -> list[dict[str, Any]]:
    """Accuracy and loss of every variant's body on every task, by fine-tuning and by a linear probe.

    Before the first iteration all ratios of a seed have one body, which is scored once.
    """
    scored = fusion.variants if number else list({variant.seed: variant for variant in fusion.variants}.values())
    at = {variant: i for i, variant in enumerate(fusion.variants)}
    bodies = [
        Body(variant.seed, {"body": jax.tree.map(lambda leaf, v=at[variant]: leaf[v], params["body"])})
        for variant in scored
    ]
    tables = {"probe": cold_scores.probed(fusion.backbone, bodies, fusion.tasks, fusion.settings, watch)}
    if number % fusion.settings.tune_every == 0 or number == fusion.settings.iterations:
        tables["fine-tuning"] = cold_scores.tuned(
            fusion.backbone, bodies, fusion.tasks, fusion.scorer, fusion.settings, watch
        )
    which = {variant.seed: i for i, variant in enumerate(scored)} if not number else {}
    row_of = {variant: at[variant] if number else which[variant.seed] for variant in fusion.variants}
    return [
        {"seed": variant.seed, "ratio": variant.ratio, "iteration": number, "task": task.name, "seen": task.seen, "kind": kind,
         "accuracy": float(table.accuracy[row_of[variant], t]), "loss": or_none(table.loss[row_of[variant], t])}
        for variant in fusion.variants
        for kind, table in tables.items()
        for t, task in enumerate(fusion.tasks)
    ]  # fmt: skip


def _save(fusion: Fusion, params: Params, folder: Any) -> None:
    """Writes a body without a head, and what belongs beside it."""
    module = fusion.backbone.module.clone(head="pooled" if "pooler" in params["body"] else "none")
    dataclasses.replace(fusion.backbone, module=module).save(folder, {"body": params["body"]}, overwrite=True)
