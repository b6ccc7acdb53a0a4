"""Soups of DINOv2-small's upper layers, fine-tuned on CIFAR-10 with anchors and without, at usual learning rates and larger ones.

Shows: accuracy of uniform and greedy soups, Model Stock and the ensemble, in distribution and on corrupted images, by mask ratio,
  paired by seed; and the barrier between members, measured, in three regimes: usual learning rates under one head; larger
  ones; larger ones with heads and halves of the data of their own. Where do fine-tunings leave the basin, and do anchors help there?
Hardware: two CPU cores, about 40 minutes when nothing else runs; `--minutes 10` computes in slices that resume. `--full` is for a
  GPU; it has not been run.
Command: `python -m fusion soup_dinov2`
Expected: see `fusion/results/soup_dinov2.json`. Mean and sample standard deviation over seeds (examples, heads, masks, orders).
Data: CIFAR-10, a few hundred images resized to 70x70 (98x98 in full). The lower layers are frozen, their tokens computed once for an
  image; so there is no augmentation. The backbone was tuned for saliency by the package that ships it: its features are weaker than DINOv2's own.
"""

from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusion import dinov2, minilm
from fusion.cold_minilm import flat, stacked
from fusion.dinov2 import Encoder
from fusion.merging_methods import Kept, anchors_moved
from tna_jax import averaging, corruptions, ensemble, finetuning, merging
from tna_jax.ensemble import Trainer
from tna_jax.io.json_files import to_json
from tna_jax.masks import AnchorRecipe, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs import data
from tna_jax.programs.cli.progress import console
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import RUNS
from train.plots import GREYS, page

USUAL, LARGE, APART = "usual rates", "large rates", "large rates, own heads and halves"
RATES = {USUAL: (5e-5, 1e-4, 2e-4), LARGE: (6e-4, 9e-4, 1.2e-3), APART: (6e-4, 9e-4, 1.2e-3)}
"""Peak learning rates of the members of a population."""
SMALL: dict[str, Any] = {
    "dataset": "cifar10", "image_size": 70, "trained_layers": 2, "ratios": (0.0, 0.2, 0.4, 0.6), "seeds": 3, "regimes": (USUAL, LARGE, APART),
    "train_examples": 640, "epochs": 2, "batch_size": 16, "warmup": 8, "held_out_examples": 80, "test_examples": 240, "shifted_examples": 40,
    "corruptions": ("noise", "blur", "contrast"), "severity": 3,
}  # fmt: skip
FULL: dict[str, Any] = {**SMALL, "image_size": 98, "trained_layers": 6, "seeds": 5, "train_examples": 10000, "epochs": 5, "batch_size": 64,
                        "warmup": 50, "held_out_examples": 2000, "test_examples": 10000, "shifted_examples": 2000}  # fmt: skip
PROBE, SINGLE, MEMBERS, UNIFORM, GREEDY, STOCK, ENSEMBLE = (
    "linear probe", "best single", "mean of members", "uniform soup", "greedy soup", "model stock", "logit ensemble")  # fmt: skip
FUSIONS = (SINGLE, MEMBERS, UNIFORM, GREEDY, STOCK, ENSEMBLE)
TEST, SHIFTED = "test", "shifted"


class Split:
    """Tokens and labels of one set of images."""

    def __init__(self, encoder: Encoder, images: np.ndarray, labels: np.ndarray):
        self.tokens, self.labels = encoder.tokens(images), np.asarray(labels)


class Examples:
    """All images of a seed: what is trained on, what chooses, and the test sets."""

    def __init__(self, encoder: Encoder, dataset: Any, seed: int, settings: dict[str, Any]):
        count, held = settings["train_examples"], settings["held_out_examples"]
        rows = np.random.default_rng((0, seed)).permutation(len(dataset.train.labels))[: count + held]
        images, labels = (
            np.asarray(dataset.train.images[np.sort(rows)]),
            np.asarray(dataset.train.labels[np.sort(rows)]),
        )
        order = np.random.default_rng((1, seed)).permutation(len(rows))
        images, labels = images[order], labels[order]
        self.train, self.held_out = (
            Split(encoder, images[:count], labels[:count]),
            Split(encoder, images[count:], labels[count:]),
        )
        rows = np.random.default_rng(2).permutation(len(dataset.test.labels))
        test, few = np.sort(rows[: settings["test_examples"]]), np.sort(rows[: settings["shifted_examples"]])
        self.test = Split(encoder, np.asarray(dataset.test.images[test]), dataset.test.labels[test])
        key = stream(seed, Stream.RUN_SHIFT)
        corrupted = [np.asarray(corruptions.corrupt(jax.random.fold_in(key, i), jnp.asarray(dataset.test.images[few]), kind, settings["severity"]))
                     for i, kind in enumerate(settings["corruptions"])]  # fmt: skip
        self.shifted = Split(encoder, np.concatenate(corrupted), np.tile(dataset.test.labels[few], len(corrupted)))


def run(full: bool = False) -> dict[str, Any]:
    """Fine-tunes and fuses every population; resumes with what is there."""
    settings = FULL if full else SMALL
    dataset = data.load(settings["dataset"], data_dir=None)
    encoder = dinov2.load(dataset, settings["image_size"], settings["trained_layers"])
    folder = RUNS / "soup_dinov2"
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder / f"scores_{'full' if full else 'small'}.json")
    examples: dict[int, Examples] = {}
    rows: list[dict[str, Any]] = []

    def of(seed: int) -> Examples:
        if seed not in examples:
            examples.clear()
            console.print(f"tokens of seed {seed}")
            examples[seed] = Examples(encoder, dataset, seed, settings)
        return examples[seed]

    for seed in range(settings["seeds"]):
        probe = kept(f"probe {seed}", lambda s=seed: probed(encoder, of(s)))
        rows.append({"seed": seed, "regime": None, "ratio": None, "accuracy": {PROBE: probe}})
        for regime in settings["regimes"]:
            populations = kept(f"{regime} {seed}", lambda r=regime, s=seed: population(encoder, of(s), r, s, settings))
            rows += [{"seed": seed, "regime": regime, **row} for row in populations]
    contents: dict[str, Any] = to_json({
        "config": settings, "rates": RATES, "checkpoint": dinov2.CHECKPOINT, "parameters": sum(leaf.size for leaf in jax.tree.leaves(encoder.body)),
        "rows": rows, "summary": summary(rows, settings),
    })  # fmt: skip
    return contents


def fit_head(encoder: Encoder, split: Any, rows: slice = slice(None)) -> dict[str, np.ndarray]:
    """Fits a head to the base's features."""
    known = features(encoder, encoder.body, split.tokens[rows])
    fitted = minilm.fit_head(jnp.asarray(known), jnp.asarray(split.labels[rows]), 10, 0.03)
    result: dict[str, np.ndarray] = jax.tree.map(np.asarray, fitted)
    return result


def features(encoder: Encoder, body: Params, tokens: np.ndarray) -> np.ndarray:
    """Computes features (N, 768); N is a multiple of the batch."""
    parts = [
        np.asarray(encoder.features(body, tokens[i : i + dinov2.BATCH])) for i in range(0, len(tokens), dinov2.BATCH)
    ]
    return np.concatenate(parts)


def logits(encoder: Encoder, model: Params, tokens: np.ndarray) -> np.ndarray:
    """Computes logits (N, 10) of a model {"body", "head"}."""
    scores: np.ndarray = features(encoder, model["body"], tokens) @ np.asarray(model["head"]["kernel"]) + np.asarray(
        model["head"]["bias"]
    )
    return scores


def right(scores: np.ndarray, split: Split) -> float:
    """Computes the accuracy."""
    return float((scores.argmax(1) == split.labels).mean())


def loss(scores: np.ndarray, split: Split) -> float:
    """Computes the mean cross-entropy, in nats."""
    largest = scores.max(1, keepdims=True)
    log = scores - largest - np.log(np.exp(scores - largest).sum(1, keepdims=True))
    return float(-log[np.arange(len(log)), split.labels].mean())


def probed(encoder: Encoder, examples: Examples) -> dict[str, float]:
    """Returns the accuracy of the linear probe that fine-tuning starts from, on both test sets."""
    model = {"body": encoder.body, "head": fit_head(encoder, examples.train)}
    return {
        name: right(logits(encoder, model, split.tokens), split)
        for name, split in ((TEST, examples.test), (SHIFTED, examples.shifted))
    }


def network(encoder: Encoder) -> Any:
    """Returns the classifier of {"body", "head"}; one function, so that its programs are found again."""
    if encoder.features not in _NETWORKS:
        _NETWORKS[encoder.features] = lambda params, tokens: (
            encoder.features(params["body"], tokens) @ params["head"]["kernel"] + params["head"]["bias"][None]
        )
    return _NETWORKS[encoder.features]


_NETWORKS: dict[Any, Any] = {}


def population(
    encoder: Encoder, examples: Examples, regime: str, seed: int, settings: dict[str, Any]
) -> list[dict[str, Any]]:
    """Fine-tunes the members of every ratio at once, and fuses them by ratio."""
    console.print(f"{regime}, seed {seed}")
    rates, ratios, train = RATES[regime], settings["ratios"], examples.train
    half = len(train.labels) // 2
    apart = regime == APART
    parts = (
        [slice(0, half), slice(half, None), slice(half // 2, half // 2 + half)] if apart else [slice(None)] * len(rates)
    )
    epochs = settings["epochs"] * (2 if apart else 1)
    shared = fit_head(encoder, train)
    heads = [fit_head(encoder, train, part) for part in parts] if apart else [shared] * len(rates)
    size = len(train.labels[parts[0]])
    steps = epochs * -(-size // settings["batch_size"])
    trainer = Trainer(network(encoder), finetuning.adamw(steps, settings["warmup"]), settings["batch_size"], "map")
    masks = [jax.tree.map(np.asarray, AnchorRecipe(ratio=ratio, seed=seed).draw(encoder.body)) for ratio in ratios]
    params = stacked([{"body": encoder.body, "head": head} for _ in ratios for head in heads])
    whole = stacked(
        [
            {"body": mask, "head": jax.tree.map(lambda x: np.ones(x.shape, bool), shared)}
            for mask in masks
            for _ in rates
        ]
    )
    orders = jnp.stack([stream(seed, Stream.RUN_ORDER, i) for _ in ratios for i in range(len(rates))])
    hyper = finetuning.stack([finetuning.FinetuneConfig(rate, 0.01) for _ in ratios for rate in rates])
    member_data: Any = stacked(
        [(train.tokens[part], train.labels[part].astype(np.int32)) for _ in ratios for part in parts]
    )
    members = ensemble.init_ensemble(trainer, params, orders, whole, hyper, member_data=member_data)
    trained = jax.tree.map(np.asarray, ensemble.train_ensemble(trainer, members, None, None, epochs)[0].params)
    rows = []
    for number, ratio in enumerate(ratios):
        first = number * len(rates)
        models = [jax.tree.map(lambda x, i=first + i: x[i], trained) for i in range(len(rates))]
        moved = sum(anchors_moved(masks[number], encoder.body, model["body"]) for model in models)
        rows.append(
            {
                "ratio": ratio,
                "anchors_moved": moved,
                **fused(encoder, examples, models, {"body": encoder.body, "head": shared}),
            }
        )
    return rows


def fused(encoder: Encoder, examples: Examples, models: list[Params], base: Params) -> dict[str, Any]:
    """Fuses a population, scores every fusion, and measures the barrier of every pair at the midpoint on the test set."""
    splits = {"held out": examples.held_out, TEST: examples.test, SHIFTED: examples.shifted}

    def scores(model: Params) -> dict[str, np.ndarray]:
        return {name: logits(encoder, model, split.tokens) for name, split in splits.items()}

    of_members = [scores(model) for model in models]
    held = [right(member["held out"], examples.held_out) for member in of_members]

    def evaluate(model: Params) -> float:
        return right(logits(encoder, model, examples.held_out.tokens), examples.held_out)

    greedy, _ = averaging.greedy_soup(averaging.stack(models), evaluate, scores=held)
    soups = {UNIFORM: averaging.uniform_soup(models), GREEDY: greedy, STOCK: merging.merge("model_stock", models, base)}
    predictions = {name: scores(jax.tree.map(np.asarray, model)) for name, model in soups.items()}
    predictions[SINGLE] = of_members[int(np.argmax(held))]
    predictions[ENSEMBLE] = {name: np.mean([member[name] for member in of_members], axis=0) for name in splits}
    accuracy = {
        name: {part: right(made[part], splits[part]) for part in (TEST, SHIFTED)} for name, made in predictions.items()
    }
    accuracy[MEMBERS] = {
        part: float(np.mean([right(member[part], splits[part]) for member in of_members])) for part in (TEST, SHIFTED)
    }
    barriers, drops = [], []
    for i, j in combinations(range(len(models)), 2):
        middle = jax.tree.map(lambda a, b: 0.5 * (a + b), models[i], models[j])
        between, ends = logits(encoder, middle, examples.test.tokens), [of_members[k][TEST] for k in (i, j)]
        barriers.append(loss(between, examples.test) - float(np.mean([loss(end, examples.test) for end in ends])))
        drops.append(float(np.mean([right(end, examples.test) for end in ends])) - right(between, examples.test))
    start = flat(base["body"])
    moved = [float(np.linalg.norm(flat(model["body"]) - start) / np.linalg.norm(start)) for model in models]
    return {"accuracy": accuracy, "barriers": barriers, "drops": drops, "moved": moved}


def summary(rows: list[dict[str, Any]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Computes by regime and ratio: accuracies, soups less the best single, less the same without anchors, barriers; [mean, deviation]."""
    made = []
    for regime in settings["regimes"]:
        by_seed = {(row["ratio"], row["seed"]): row for row in rows if row["regime"] == regime}
        for ratio in settings["ratios"]:
            chosen = {seed: row for (r, seed), row in by_seed.items() if r == ratio}
            plain = {seed: by_seed[settings["ratios"][0], seed] for seed in chosen}
            line: dict[str, Any] = {"regime": regime, "ratio": ratio, "n": len(chosen)}
            for split in (TEST, SHIFTED):
                line[split] = {
                    name: list(mean_std(row["accuracy"][name][split] for row in chosen.values())) for name in FUSIONS
                }
                line[f"{split}, uniform over single"] = list(
                    mean_std(
                        row["accuracy"][UNIFORM][split] - row["accuracy"][SINGLE][split] for row in chosen.values()
                    )
                )
                line[f"{split}, uniform over no anchors"] = list(
                    mean_std(
                        chosen[s]["accuracy"][UNIFORM][split] - plain[s]["accuracy"][UNIFORM][split] for s in chosen
                    )
                )
            line["barrier"] = list(mean_std(float(np.mean(row["barriers"])) for row in chosen.values()))
            line["barrier less no anchors"] = list(
                mean_std(float(np.mean(chosen[s]["barriers"]) - np.mean(plain[s]["barriers"])) for s in chosen)
            )
            line["drop"] = list(mean_std(float(np.mean(row["drops"])) for row in chosen.values()))
            line["moved"] = list(mean_std(float(np.mean(row["moved"])) for row in chosen.values()))
            line["anchors_moved"] = sum(row["anchors_moved"] for row in chosen.values())
            made.append(line)
    return made


HEADS = ["regime", "ratio", "barrier (nats)", "barrier less no anchors", SINGLE, MEMBERS, UNIFORM, GREEDY, STOCK, ENSEMBLE, "uniform less no anchors",
         "shifted, uniform", "shifted, less no anchors"]  # fmt: skip


def lines(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the table."""
    made = []
    for line in result["summary"]:
        made.append([
            line["regime"], f"{line['ratio']:g}", format_mean_std(line["barrier"], 3, sign=True), _over(line, "barrier less no anchors"),
            *(format_mean_std(line[TEST][name], 3) for name in FUSIONS), _over(line, f"{TEST}, uniform over no anchors"),
            format_mean_std(line[SHIFTED][UNIFORM], 3), _over(line, f"{SHIFTED}, uniform over no anchors"),
        ])  # fmt: skip
    return made


def _over(line: dict[str, Any], key: str) -> str:
    """Returns a difference to the same without anchors; a dash of what has none."""
    return format_mean_std(line[key], 3, sign=True) if line["ratio"] else "–"


def table(result: dict[str, Any]) -> None:
    """Accuracies and barriers by regime and ratio."""
    show_table(
        Table("Soups of DINOv2-small, CIFAR-10, mean ± standard deviation over seeds", HEADS, lines(result), keys=2)
    )


def figure(result: dict[str, Any], file: Path) -> None:
    """Barriers and accuracies against the ratio, by regime."""
    regimes = result["config"]["regimes"]
    with page(file, 1, len(regimes) + 1, width=3, height=3) as axes:
        for i, regime in enumerate(regimes):
            chosen = [line for line in result["summary"] if line["regime"] == regime]
            ratios = [line["ratio"] for line in chosen]
            means, spreads = np.array([line["barrier"] for line in chosen], float).T
            axes[0, 0].errorbar(
                ratios, means, yerr=spreads, marker="os^"[i], markersize=4, capsize=2, color=GREYS[i], label=regime
            )
            for k, name in enumerate((SINGLE, UNIFORM, STOCK, ENSEMBLE)):
                means, spreads = np.array([line[TEST][name] for line in chosen], float).T
                axes[0, i + 1].errorbar(
                    ratios, means, yerr=spreads, marker="os^v"[k], markersize=4, capsize=2, color=GREYS[k], label=name
                )
            axes[0, i + 1].set_title(regime, fontsize=8)
        axes[0, 0].set_title("barrier at the midpoint (nats)", fontsize=8)
        for axis in axes[0]:
            axis.set_xlabel("mask ratio", fontsize=8)
            axis.legend(fontsize=6, frameon=False)
