"""ColD Fusion on MiniLM: seven text tasks fine-tune its upper layers apart, bodies are averaged, with anchors of several kinds and without.

Shows: accuracy of the fused body on tasks that contribute and on two that never do, by a linear probe and by fine-tuning, paired by
  seed, by kind of anchors: none, elements at 0.2 and 0.4 (a fresh mask in each iteration), one mask for all iterations, whole
  layers; the barrier between contributors, measured at the midpoint; and both where contributors make many more steps.
Hardware: one CPU core, about 40 minutes when nothing else runs; `--minutes 10` computes in slices that resume. `--full` is for a
  GPU; it has not been run.
Command: `python -m fusion cold_minilm`
Expected: see `fusion/results/cold_minilm.json`. Mean and sample standard deviation over seeds (examples, orders, masks; one base).
Data: SST-2, MR, SUBJ, TREC, CR, MPQA, CoLA contribute; AG News and RTE are unseen. The lower layers and the table of words are frozen
  (`tna cold --freeze`), so what they give is computed once for a text. A head begins as a logistic regression on the base's features.
"""

from itertools import pairwise, product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fusion import finetuned_bodies, minilm
from fusion.finetuned_bodies import Examples, Task, accuracy, features, inputs_of
from fusion.merging_methods import Kept, anchors_moved
from fusion.minilm import Encoder
from tna_jax import averaging, finetuning, metrics
from tna_jax.ensemble import Trainer, init_ensemble, train_ensemble
from tna_jax.io import safetensors
from tna_jax.io.json_files import to_json
from tna_jax.masks import AnchorRecipe, Mask, Params
from tna_jax.prng import Stream, stream
from tna_jax.programs.cli.progress import console
from tna_jax.programs.cold.tasks import drawn
from tna_jax.programs.reports.blocks import Table
from tna_jax.programs.reports.statistics import format_mean_std, mean_std
from tna_jax.programs.reports.terminal import show_table
from train.cells import RUNS
from train.plots import GREYS, page

NONE, FRESH_20, FRESH_40, ONE_MASK, LAYERS = "none", "elements 0.2", "elements 0.4", "one mask 0.4", "whole layers"
KINDS = (NONE, FRESH_20, FRESH_40, ONE_MASK, LAYERS)
RATIOS = {NONE: 0.0, FRESH_20: 0.2, FRESH_40: 0.4, ONE_MASK: 0.4}
SMALL: dict[str, Any] = {
    "tasks": ("sst2", "mr", "subj", "trec", "cr", "mpqa", "cola"), "unseen": ("ag_news", "rte"), "seeds": 3, "iterations": 2,
    "trained_layers": 2, "length": 16, "batch_size": 16, "steps": 10, "warmup": 2, "learning_rate": 3e-4, "drift_iterations": 1,
    "drift_steps": 50, "drift_kinds": (NONE, FRESH_40), "head_examples": 128, "held_out_examples": 48, "test_examples": 120,
}  # fmt: skip
FULL: dict[str, Any] = {**SMALL, "seeds": 5, "iterations": 5, "trained_layers": 4, "length": 64, "batch_size": 32, "steps": 60,
                        "drift_steps": 500, "drift_iterations": 3, "head_examples": 2000, "held_out_examples": 1000, "test_examples": 2000}  # fmt: skip
USUAL, DRIFT = "usual", "many steps"
SEEN, UNSEEN, TUNED = "seen, probe", "unseen, probe", "unseen, fine-tuned"


def run(full: bool = False) -> dict[str, Any]:
    """Runs both lengths of contributions for every seed, and scores them; resumes with what is there."""
    settings = FULL if full else SMALL
    encoder = minilm.load(settings["length"], settings["trained_layers"])
    tasks = finetuned_bodies.tasks(encoder, {**settings, "tasks": (*settings["tasks"], *settings["unseen"])})
    folder = RUNS / "cold_minilm" / ("full" if full else "small")
    folder.mkdir(parents=True, exist_ok=True)
    kept = Kept(folder / "scores.json")
    rows: list[dict[str, Any]] = []
    lengths = {USUAL: (settings["steps"], settings["iterations"], KINDS),
               DRIFT: (settings["drift_steps"], settings["drift_iterations"], settings["drift_kinds"])}  # fmt: skip
    for seed, (length, (steps, iterations, kinds)) in product(range(settings["seeds"]), lengths.items()):
        start = kept(f"start {seed}", lambda s=seed: score(encoder, tasks, encoder.body, s, settings))
        rows.append({"length": length, "seed": seed, "kind": "start", "iteration": 0, **start})
        state = State(folder / f"{length.replace(' ', '_')}_{seed}.safetensors", encoder, tasks, kinds, seed, settings)
        for iteration in range(iterations):
            name = f"{length} {seed} {iteration}"
            trained = kept(f"{name} trained", lambda i=iteration, s=state, n=steps: s.iterate(i, n))
            last = iteration + 1 == iterations
            for kind in kinds:
                row = {"length": length, "seed": seed, "kind": kind, "iteration": iteration + 1, **trained[kind]}
                if last:
                    row |= kept(f"{name} {kind}", lambda k=kind, s=state: s.score(k))
                rows.append(row)
    contents: dict[str, Any] = to_json({
        "config": settings, "parameters": sum(leaf.size for leaf in jax.tree.leaves(encoder.body)), "package": minilm.PACKAGE,
        "tasks": [{"name": task.name, "title": task.title, "seen": task.name in settings["tasks"], "test": len(task.test.labels)}
                  for task in tasks],
        "rows": rows, "summary": summary(rows),
    })  # fmt: skip
    return contents


class State:
    """The bodies and heads of one fusion, by kind of anchors, in a file after each iteration."""

    def __init__(
        self,
        file: Path,
        encoder: Encoder,
        tasks: list[Task],
        kinds: tuple[str, ...],
        seed: int,
        settings: dict[str, Any],
    ):
        self.file, self.encoder, self.tasks, self.kinds, self.seed, self.settings = (
            file,
            encoder,
            tasks,
            kinds,
            seed,
            settings,
        )
        self.contributors = tasks[: len(settings["tasks"])]

    def begin(self) -> dict[str, Any]:
        """Returns the base for every kind, and the heads of the contributors."""
        heads = [head(self.encoder, task, self.encoder.body, k, self.seed, self.settings)
                 for k, task in enumerate(self.contributors)]  # fmt: skip
        return {kind: {"body": self.encoder.body, "heads": heads} for kind in self.kinds}

    def load(self) -> dict[str, Any]:
        """Returns what the file holds, with the number of iterations that are done."""
        like = {
            kind: {"body": self.encoder.body, "heads": [_empty(task, self.encoder) for task in self.contributors]}
            for kind in self.kinds
        }
        tree: dict[str, Any] = safetensors.load(self.file, like)
        return tree

    def iterate(self, number: int, steps: int) -> dict[str, Any]:
        """Trains every contributor from the fused body, measures barriers, fuses; returns what is to be said of each kind."""
        console.print(f"{self.file.stem}: iteration {number + 1}")
        tree = self.load() if number else self.begin()
        masks = {kind: self.mask(kind, number) for kind in self.kinds}
        trained: list[dict[str, Any]] = []  # by contributor, by kind
        for k, task in enumerate(self.contributors):
            starts = [{"body": tree[kind]["body"], "head": tree[kind]["heads"][k]} for kind in self.kinds]
            key = number * len(self.tasks) + k
            made = train(
                self.encoder, task, starts, [masks[kind] for kind in self.kinds], key, self.seed, steps, self.settings
            )
            trained.append(dict(zip(self.kinds, made, strict=True)))
        facts = {}
        for kind in self.kinds:
            models = [by_kind[kind] for by_kind in trained]
            bodies, before = [model["body"] for model in models], tree[kind]["body"]
            facts[kind] = {"barriers": barriers(self.encoder, self.contributors, models), **geometry(before, bodies),
                           "own": [accuracy(features(self.encoder, m["body"], task.held_out), m["head"], task.held_out.labels)
                                   for m, task in zip(models, self.contributors, strict=True)]}  # fmt: skip
            fused = jax.tree.map(np.asarray, averaging.uniform_soup(bodies))
            facts[kind]["anchors_moved"] = anchors_moved(masks[kind], before, fused)
            tree[kind] = {"body": fused, "heads": [model["head"] for model in models]}
        safetensors.save(self.file, tree)
        return facts

    def mask(self, kind: str, number: int) -> Mask:
        """Draws the mask of an iteration: of elements, fresh or the same in all, or of one whole layer."""
        body = self.encoder.body
        if kind == LAYERS:
            layers = sorted(body)
            chosen = layers[int(np.random.default_rng((self.seed, number)).integers(len(layers)))]
            return jax.tree.map(np.asarray, AnchorRecipe(ratio=0.0, freeze=f"^{chosen}/").draw(body))
        recipe = AnchorRecipe(ratio=RATIOS[kind], seed=self.seed)
        key = recipe.key if kind == ONE_MASK else jax.random.fold_in(recipe.key, number)
        return jax.tree.map(np.asarray, recipe.draw(body, key))

    def score(self, kind: str) -> dict[str, Any]:
        """Scores the fused body of a kind."""
        return score(self.encoder, self.tasks, self.load()[kind]["body"], self.seed, self.settings)


def network(encoder: Encoder) -> Any:
    """Returns the classifier of {"body", "head"}; one function for an encoder, so that its programs are found again."""
    if encoder.features not in _NETWORKS:
        _NETWORKS[encoder.features] = lambda params, inputs: logits(encoder, params, inputs)
    return _NETWORKS[encoder.features]


_NETWORKS: dict[Any, Any] = {}


def logits(encoder: Encoder, params: Params, inputs: Any) -> jax.Array:
    """Computes the logits (B, C)."""
    scores: jax.Array = (
        encoder.features(params["body"], inputs) @ params["head"]["kernel"] + params["head"]["bias"][None]
    )
    return scores


def train(
    encoder: Encoder,
    task: Task,
    starts: list[Any],
    masks: list[Mask],
    key: int,
    seed: int,
    steps: int,
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Fine-tunes one task from several starts at once, on the same examples in the same order; heads are never anchored."""
    size = settings["batch_size"]
    texts, labels = drawn(stream(seed, Stream.RUN_DATA, key), task, steps * size)  # type: ignore[arg-type]
    trainer = Trainer(network(encoder), finetuning.adamw(steps, settings["warmup"]), size, "map")
    count = len(starts)
    whole = [{"body": mask, "head": jax.tree.map(lambda x: np.ones(x.shape, bool), start["head"])}
             for mask, start in zip(masks, starts, strict=True)]  # fmt: skip
    members = init_ensemble(
        trainer, stacked(starts), jnp.stack([stream(seed, Stream.RUN_ORDER, key)] * count), stacked(whole),
        finetuning.stack([finetuning.FinetuneConfig(settings["learning_rate"], 0.01)] * count),
    )  # fmt: skip
    params = train_ensemble(trainer, members, inputs_of(encoder, texts), labels, 1)[0].params
    host = jax.tree.map(np.asarray, params)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(count)]


def head(encoder: Encoder, task: Task, body: Params, number: int, seed: int, settings: dict[str, Any]) -> Any:
    """Fits a task's head to the features of a body on examples of the seed."""
    texts, labels = drawn(stream(seed, Stream.RUN_SCORE, number), task, settings["head_examples"])  # type: ignore[arg-type]
    known = features(encoder, body, finetuned_bodies.examples(encoder, texts, labels))
    fitted = minilm.fit_head(jnp.asarray(known), jnp.asarray(labels), task.num_classes, 0.1)
    result: dict[str, np.ndarray] = jax.tree.map(np.asarray, fitted)
    return result


def _empty(task: Task, encoder: Encoder) -> dict[str, Any]:
    return {
        "kernel": np.zeros((encoder.width, task.num_classes), np.float32),
        "bias": np.zeros(task.num_classes, np.float32),
    }


def score(encoder: Encoder, tasks: list[Task], body: Params, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Test accuracy of a body: by a linear probe on every task, and fine-tuned, without anchors, on the unseen ones."""
    probe, tuned = {}, {}
    for number, task in enumerate(tasks):
        fitted = head(encoder, task, body, number, seed, settings)
        probe[task.name] = accuracy(features(encoder, body, task.test), fitted, task.test.labels)
        if task.name in settings["unseen"]:
            every = jax.tree.map(lambda x: np.ones(x.shape, bool), body)
            start = {"body": body, "head": fitted}
            model = train(encoder, task, [start], [every], 1000 + number, seed, 2 * settings["steps"], settings)[0]
            tuned[task.name] = accuracy(features(encoder, model["body"], task.test), model["head"], task.test.labels)
    return {"probe": probe, "tuned": tuned}


def loss(encoder: Encoder, body: Params, fitted: Any, split: Examples) -> float:
    """Computes the mean cross-entropy of a body under a head, in nats."""
    scores = features(encoder, body, split) @ fitted["kernel"] + fitted["bias"]
    return float(np.mean(np.asarray(metrics.cross_entropy(jnp.asarray(scores), jnp.asarray(split.labels)))))


def barriers(encoder: Encoder, tasks: list[Task], models: list[dict[str, Any]]) -> list[float]:
    """Computes, for each contributor and the next in the ring, the barrier of their joint loss at the midpoint of their bodies, in nats.

    The joint loss is the mean over both tasks, each under its own head, on held-out texts. The barrier is that of the midpoint less the
    mean of both ends; below 0 where averaging helps.
    """
    ring = list(range(len(models)))
    found = []
    for i, j in pairwise([*ring, 0]):
        bodies = [models[i]["body"], models[j]["body"]]
        bodies.append(jax.tree.map(lambda a, b: 0.5 * (a + b), *bodies))
        joint = [
            np.mean([loss(encoder, body, models[k]["head"], tasks[k].held_out) for k in (i, j)]) for body in bodies
        ]
        found.append(float(joint[2] - (joint[0] + joint[1]) / 2))
    return found


def stacked(trees: list[Any]) -> Any:
    """Returns trees as one with a leading axis, in NumPy."""
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def flat(tree: Params) -> np.ndarray:
    """Returns all entries of a tree in one array."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def geometry(before: Params, bodies: list[Params]) -> dict[str, float]:
    """Computes how far contributors moved, relative to the norm of the body, and the mean cosine of two of their moves."""
    start = flat(before)
    moves = [flat(body) - start for body in bodies]
    norms = [float(np.linalg.norm(move)) for move in moves]
    cosines = [float(moves[i] @ moves[j]) / (norms[i] * norms[j]) for i in range(len(moves)) for j in range(i)]
    return {"moved": float(np.mean(norms) / np.linalg.norm(start)), "cosine": float(np.mean(cosines))}


def values(row: dict[str, Any], unseen: tuple[str, ...]) -> dict[str, float]:
    """Returns the three scores of a row that was scored."""
    return {
        SEEN: float(np.mean([value for name, value in row["probe"].items() if name not in unseen])),
        UNSEEN: float(np.mean([row["probe"][name] for name in unseen])),
        TUNED: float(np.mean([row["tuned"][name] for name in unseen])),
    }


def summary(rows: list[dict[str, Any]], unseen: tuple[str, ...] = SMALL["unseen"]) -> list[dict[str, Any]]:
    """Computes scores, gains over the start, gains over no anchors and the last barriers as [mean, standard deviation] over seeds."""
    lines = []
    for length, kind in dict.fromkeys((row["length"], row["kind"]) for row in rows):
        chosen = {row["seed"]: row for row in rows if (row["length"], row["kind"]) == (length, kind) and "probe" in row}
        line: dict[str, Any] = {"length": length, "kind": kind, "n": len(chosen)}
        of = {seed: values(row, unseen) for seed, row in chosen.items()}
        line["scores"] = {name: list(mean_std(v[name] for v in of.values())) for name in (SEEN, UNSEEN, TUNED)}
        for other, key in (("start", "gain"), (NONE, "over_none")):
            base = {
                row["seed"]: values(row, unseen)
                for row in rows
                if (row["length"], row["kind"]) == (length, other) and "probe" in row
            }
            line[key] = {
                name: list(mean_std(of[seed][name] - base[seed][name] for seed in of)) for name in (SEEN, UNSEEN, TUNED)
            }
        if kind != "start":
            line["barrier"] = list(mean_std(float(np.mean(row["barriers"])) for row in chosen.values()))
            line["largest_barrier"] = max(max(row["barriers"]) for row in chosen.values())
            line["moved"] = list(mean_std(row["moved"] for row in chosen.values()))
            line["anchors_moved"] = sum(
                row["anchors_moved"] for row in rows if (row["length"], row["kind"]) == (length, kind)
            )
        lines.append(line)
    return lines


HEADS = [
    "steps",
    "anchors",
    SEEN,
    UNSEEN,
    TUNED,
    "over no anchors: seen, probe",
    "unseen, tuned",
    "barrier",
    "moved",
]


def lines(result: dict[str, Any]) -> list[list[str]]:
    """Returns the rows of the table."""
    made = []
    for line in result["summary"]:
        start = line["kind"] == "start"
        scores = [format_mean_std(line["scores"][name], 3) for name in (SEEN, UNSEEN, TUNED)]
        over = [
            "–" if line["kind"] in ("start", NONE) else format_mean_std(line["over_none"][name], 3, sign=True)
            for name in (SEEN, TUNED)
        ]
        far = (
            ["–", "–"] if start else [format_mean_std(line["barrier"], 3, sign=True), format_mean_std(line["moved"], 3)]
        )
        made.append([line["length"], line["kind"], *scores, *over, *far])
    return made


def table(result: dict[str, Any]) -> None:
    """Accuracies and barriers by kind of anchors."""
    show_table(Table("ColD Fusion on MiniLM, mean ± standard deviation over seeds", HEADS, lines(result), keys=2))


def figure(result: dict[str, Any], file: Path) -> None:
    """Gains over the start by kind of anchors, and the barrier between contributors."""
    with page(file, 1, 2, width=8, height=3) as axes:
        chosen = [line for line in result["summary"] if line["kind"] != "start"]
        names = [f"{line['kind']}, {line['length']}" for line in chosen]
        at = np.arange(len(chosen))
        for i, name in enumerate((SEEN, UNSEEN, TUNED)):
            means, spreads = np.array([line["gain"][name] for line in chosen], float).T
            axes[0, 0].errorbar(
                means,
                at + 0.2 * (i - 1),
                xerr=spreads,
                fmt="os^"[i],
                markersize=4,
                capsize=2,
                color=GREYS[i],
                label=name,
            )
        means, spreads = np.array([line["barrier"] for line in chosen], float).T
        axes[0, 1].errorbar(means, at, xerr=spreads, fmt="o", markersize=4, capsize=2, color=GREYS[0])
        for axis, label in zip(axes[0], ("accuracy less the start's", "barrier at the midpoint (nats)"), strict=True):
            axis.axvline(0, color=GREYS[5], linewidth=1)
            axis.set_xlabel(label, fontsize=8)
            axis.set_yticks(at, names if axis is axes[0, 0] else [""] * len(names), fontsize=7)
            axis.invert_yaxis()
        axes[0, 0].legend(fontsize=6, frameon=False)
