"""`tna pretrain`: a ViT by classification or a BERT encoder by masked-language modeling, written as a Hugging Face folder."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import connectivity, finetuning, masked_lm, metrics, models
from tna_jax.ensemble import Trainer
from tna_jax.hf import loading, tokenizer
from tna_jax.io.errors import UsageError
from tna_jax.io.json_files import to_json
from tna_jax.masks import Params
from tna_jax.prng import Stream, stream
from tna_jax.programs import data
from tna_jax.programs.cli.catalog import options_of
from tna_jax.programs.cli.messages import wrote
from tna_jax.programs.cli.parsing import defaults, to_words
from tna_jax.programs.cli.progress import console, plural
from tna_jax.programs.data import own, text, tokens
from tna_jax.programs.data.source import Split
from tna_jax.programs.pretrain import report as pretrain_report
from tna_jax.programs.pretrain.options import PretrainOptions
from tna_jax.programs.reports.present import present
from tna_jax.programs.runs.folder import METRICS, PROVENANCE, Run
from tna_jax.programs.system import distributed
from tna_jax.programs.training import backbone, ensembles
from tna_jax.programs.training.builders import finetuning_trainer, transformer_fields
from tna_jax.programs.training.initial_models import InitialModels
from tna_jax.programs.training.setup import record, result_options

RESULTS = ("pretrain.json", "pretrain.png")
MODEL = "model"
"""Folder of the Hugging Face model in the run folder."""


def recipe(settings: PretrainOptions) -> finetuning.FinetuneConfig:
    """Returns the hyper-parameters of the training."""
    smoothing, strength = (settings.label_smoothing, settings.augmentation) if settings.model == "vit" else (0.0, 0.0)
    return finetuning.FinetuneConfig(settings.learning_rate, settings.weight_decay, smoothing, strength, settings.seed)


class Texts(NamedTuple):
    """Encoded texts, as the training of an ensemble takes data."""

    train: Split
    test: Split


class Plan(NamedTuple):
    """What is to be trained, and what becomes of it."""

    what: str
    """In words."""
    data: Any
    """With `train`, the examples."""
    module: Any
    trainer: Trainer
    example: jax.Array
    """An input of the module."""
    evaluate: Callable[[Params], metrics.AnyMetrics]
    """On the test examples."""
    beside: Callable[[Path], None]
    """Writes what belongs beside the model."""
    about: dict[str, Any]
    """Of the data, for whoever uses the model."""


def run(settings: PretrainOptions) -> dict[str, Any]:
    """Trains the model in its run folder, writes it, `pretrain.json` and `pretrain.png`; returns what the JSON holds."""
    settings.check()
    distributed.start(settings, 1)
    plan = (images if settings.model == "vit" else texts)(settings)
    settings = own.recorded(settings, plan.data) if settings.model == "vit" else settings
    start = _start(plan, settings)
    size = backbone.num_parameters(start.params)
    name = f"pretrain-{settings.model}"
    with Run.create(settings.out, name, RESULTS, settings.overwrite, settings.resume) as folder:
        record(folder, "pretrain", settings, [settings.seed])
        console.print(f"{plan.what}; {settings.model} {settings.width}x{settings.depth}, {size:,} parameters")
        described = [{"model": settings.model, "seed": settings.seed}]
        trained = ensembles.train(plan.trainer, start, plan.data, settings, folder, described, settings.resume)
        params = jax.tree.map(lambda leaf: leaf[0], trained.params)
        if trained.diverged:
            raise UsageError(f"the training diverged in epoch {trained.diverged[0]}: a lower --learning-rate")
        found = plan.evaluate(params)
        history = [json.loads(line) for line in (folder.folder / METRICS).read_text().splitlines()]
        result: dict[str, Any] = {
            "provenance": {**folder.read(PROVENANCE), **trained.facts},
            "config": result_options(settings),
            "what": plan.what,
            "parameters": size,
            "epochs": [{key: line[key] for key in ("epoch", "loss", "accuracy")} for line in history],
            "test": {"loss": found.loss, "accuracy": found.accuracy, "predictions": found.count},
            "about": plan.about,
            "headline": f"test loss {float(found.loss):.3f}, accuracy {float(found.accuracy):.3f}",
        }
        if distributed.is_main_process():
            model = folder.folder / MODEL
            loading.save(model, plan.module, params, overwrite=True)
            plan.beside(model)
            words = f"{plan.what}; {size:,} parameters, {plural(settings.epochs, 'epoch')}, tna pretrain"
            about = {"in_words": words, "parameters": size, "epochs": settings.epochs, "seed": settings.seed,
                     "commit": result["provenance"]["commit"], **plan.about, "test": result["test"]}  # fmt: skip
            backbone.write_about(model, about, plan.data if settings.model == "vit" else None)
            folder.write(RESULTS[0], result)
            present(pretrain_report.describe(to_json(result)), folder.folder / RESULTS[1])
            wrote(f"{folder.folder / RESULTS[0]}, {RESULTS[1]} and {model}", *_next(settings, str(model)))
        written: dict[str, Any] = to_json(result)
        return written


def _next(settings: PretrainOptions, model: str) -> list[str]:
    """Returns the command that fine-tunes the model: on the same data, which are at the same place."""
    program, names = ("soup", ("dataset", "data_dir")) if settings.model == "vit" else ("cold", ("data_dir",))
    usual = defaults(options_of(program))
    values = {name: getattr(settings, name) for name in names}
    return ["tna", program, "--checkpoint", model, *to_words({k: v for k, v in values.items() if v != usual.get(k)})]


def _start(plan: Plan, settings: PretrainOptions) -> InitialModels:
    params = jax.jit(plan.module.init)(stream(settings.seed, Stream.RUN_INIT), plan.example)["params"]
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], params)
    hyper = finetuning.stack([recipe(settings)])
    mask = jax.tree.map(lambda leaf: np.ones(leaf.shape, bool), one)
    return InitialModels(one, (), mask, jnp.stack([stream(settings.seed, Stream.RUN_ORDER)]), hyper)


def images(settings: PretrainOptions) -> Plan:
    """A ViT that classifies images."""
    try:
        request = data.Request(
            "classification", settings.target, settings.image_size, settings.dataset_sha256, settings.trust_code
        )
        found = data.load(settings.dataset, data_dir=settings.data_dir, request=request)
        if problem := own.changed(found, settings.data_fingerprint):
            raise data.DataError(problem)
        if found.train.images.ndim != 4:
            raise data.DataError(f"{found.name}: inputs are {found.image_shape}, a ViT takes images (N, H, W, C)")
        found = found.subset(settings.train_examples, settings.test_examples)
        module: Any = models.create(
            "vit", num_classes=found.num_classes, width=settings.width, depth=settings.depth, heads=settings.heads,
            patch=settings.patch, image_size=found.image_shape[:2], **transformer_fields(settings),
        )  # fmt: skip
    except data.DataError as error:
        raise UsageError(f"--dataset: {error}") from error
    except ValueError as error:
        raise UsageError(f"--model vit: {error}") from error
    if found.image_shape[0] != found.image_shape[1]:
        raise UsageError(f"--dataset {settings.dataset}: a ViT takes square images, these are {found.image_shape}")

    def network(params: Params, x: jax.Array) -> jax.Array:
        logits: jax.Array = module.apply({"params": params}, found.preprocess(x))
        return logits

    trainer = finetuning_trainer(
        settings, network, len(found.train.labels), prepare=finetuning.augmented, loss=finetuning.smoothed
    )  # fmt: skip

    def evaluate(params: Params) -> metrics.AnyMetrics:
        stacked = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
        test = (jnp.asarray(found.test.images), jnp.asarray(found.test.labels))
        (made,) = connectivity.evaluate(network, stacked, {"test": test}, batch_size=250).values()
        single: metrics.AnyMetrics = jax.tree.map(lambda leaf: leaf[0], made)
        return single

    what = f"classification of {found.describe()}"
    about = {"data": settings.dataset, "train_examples": len(found.train.labels), "classes": found.num_classes}
    return Plan(what, found, module, trainer, jnp.zeros((1, *found.image_shape)), evaluate, lambda folder: None, about)


def texts(settings: PretrainOptions) -> Plan:
    """A BERT that predicts hidden tokens."""
    try:
        loaded = [text.load(name, data_dir=settings.data_dir) for name in settings.tasks]
    except data.DataError as error:
        raise UsageError(f"--tasks: {error}") from error
    known = _different(task.train for task in loaded)[: settings.train_examples]
    unseen = _different(task.validation for task in loaded)[: settings.test_examples]
    made = tokenizer.train(known, settings.vocab)
    train, test = (tokens.encode(made, [(line,) for line in lines], settings.length) for lines in (known, unseen))
    try:
        module: Any = models.create(
            "bert", width=settings.width, depth=settings.depth, heads=settings.heads, vocab=made.vocab,
            pad_id=made.pad,
            positions=settings.length, head="masked_lm", **transformer_fields(settings),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(f"--model bert: {error}") from error

    def network(params: Params, x: Any) -> jax.Array:
        ids, at = x
        logits: jax.Array = module.apply({"params": params}, ids, at=at)
        return logits

    hidden = functools.partial(masked_lm.mask_tokens, special=jnp.asarray(tokens.special(made)), mask_id=made.mask)

    def prepare(key: jax.Array, hyper: Any, batch: Any) -> Any:
        encoded, _, weight = batch
        drawn = hidden(key, encoded[:, tokens.IDS])
        return (drawn.ids, drawn.positions), drawn.targets, drawn.weight * weight[:, None]

    trainer = finetuning_trainer(settings, network, len(train), prepare=prepare)
    step = jax.jit(
        lambda params, inputs, targets, weight: metrics.classification(network(params, inputs), targets, weight)
    )

    def evaluate(params: Params) -> metrics.Metrics:
        total: metrics.Metrics = jax.tree.map(np.asarray, metrics.zero())
        key = stream(settings.seed, Stream.RUN_TEST)
        for number, first in enumerate(range(0, len(test), 256)):
            rows = np.minimum(np.arange(first, first + 256), len(test) - 1)
            real = jnp.asarray(np.arange(first, first + 256) < len(test), jnp.float32)
            batch = prepare(jax.random.fold_in(key, number), {}, (jnp.asarray(test[rows]), None, real))
            total = metrics.merge(total, jax.tree.map(np.asarray, step(params, *batch)))
        return total

    what = (f"masked-language modelling of {len(train):,} training texts of {', '.join(task.title for task in loaded)}, "
            f"{made.vocab} tokens trained on them, {settings.length} tokens a text")  # fmt: skip
    about = {"tasks": settings.tasks, "train_examples": len(train), "vocabulary": made.vocab, "length": settings.length}
    splits = Texts(*(Split(encoded, np.zeros(len(encoded), np.int32)) for encoded in (train, test)))
    return Plan(what, splits, module, trainer, jnp.zeros((1, 4), jnp.int32), evaluate,
                lambda folder: dataclasses.replace(made, max_length=module.positions).save(folder), about)  # fmt: skip


def _different(splits: Any) -> list[str]:
    """Every text of the splits once, in order."""
    return list(dict.fromkeys(line for split in splits for texts in split.texts for line in texts if line.strip()))
