"""Tables that take from several results: the evidence in brief, and the paper's claims beside what was measured here."""

from typing import Any

import numpy as np

from fusion import federated, federated_baselines
from fusion.soup_dinov2 import APART, USUAL
from tna_jax.programs.cli.catalog import GROUPS, PROGRAMS
from tna_jax.programs.cold import report as cold_report
from tna_jax.programs.reports.statistics import format_mean_std
from train.cells import find, summary
from train.cells import measured as format_measure
from train.record import drawing

Result = dict[str, Any]

INITS = {"same": "one initialization", "different": "different, anchors shared"}
RATIOS = (0.0, 0.4, 0.8)
CNN = "cifar10_cnn"


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def programs() -> str:
    """What `tna --help` lists: the five of the main story, then one line for each other group."""
    main, *others = GROUPS
    rows = [[f"`tna {name}`", PROGRAMS[name][1]] for name in GROUPS[main]]
    lines = [f"- {group}: {', '.join(f'`tna {name}`' for name in GROUPS[group])}" for group in others]
    return "\n".join([markdown(["program", "what it does"], rows), "", *lines])


def measured(case: Result, init: str, ratio: float, measure: str = "accuracy_barrier") -> str:
    """A measure of a cell; a dash where that was not run."""
    found = [line for line in case["summary"] if (line["init"], line["ratio"], line["method"]) == (init, ratio, "tna")]
    return format_measure(found[0], measure) if found else "–"


def sized(case: Result) -> Result:
    """A case with its number of training images in its title."""
    data, rest = case["title"].split(",", 1)
    return {**case, "title": f"{data} ({case['config']['train_examples']:,} images),{rest}"}


def brief(digits: Result, figure2: Result, figure5: Result, anchors: Result) -> str:
    """Accuracy barriers by network, initialization and mask ratio."""
    rows = []
    digits = {
        "title": "digits, MLP 4x128",
        "summary": summary([row for row in digits["rows"] if row["split"] == "test"]),
    }
    cells = figure2["cells"]
    resnet = {**figure5["cells"]["resnet20"], "title": "CIFAR-10, ResNet20"}
    for case in (digits, *map(sized, (cells["fashion_mlp"], cells["cifar10_cnn"], resnet))):
        for init, name in INITS.items():
            line = find(case, init=init, ratio=0.4, method="tna")
            pairs = str(line["n"] if line else 0)
            rows.append([case["title"], name, pairs, *(measured(case, init, ratio) for ratio in RATIOS)])
    heavy = [(sized({**case["rows"]["recipe"], "title": case["title"]})["title"], *(find(case["rows"][name]) for name in ("none", "recipe")))
             for case in anchors["cases"].values()]  # fmt: skip
    deep = (find(figure5["cells"][name], init="different", ratio=ratio, method="tna")
            for name, ratio in (("resnet20", 0), ("resnet20_recipe", 0.4)))  # fmt: skip
    for title, none, recipe in (*heavy, (sized(resnet)["title"], *deep)):
        rows.append([f"{title}, *heavy anchors*", INITS["different"], str(recipe["n"]),
                     *(format_measure(line, "accuracy_barrier") for line in (none, recipe)), "–"])  # fmt: skip
    return markdown(["data, network", "initialization", "pairs", *("no anchors", "ratio 0.4", "ratio 0.8")], rows)


def transformers(record: Result, language: Result) -> str:
    """Loss barriers between Transformers from different initial values, and the loss of their ends, without anchors and with."""
    case = record["cases"]["vit_small"]
    rows = drawing.rows_at(case, drawing.stages(case)[-1])
    plain, anchored = (rows[name] for name in ("standard", "w_asym_start.1"))
    vit = [format_mean_std(drawing.summary(pairs, drawing.COLUMNS[column]), 3)
           for column in ("loss barrier", "ends: loss") for pairs in (plain, anchored)]  # fmt: skip
    gpts = {c["anchors"]: np.array(c["loss"], float) for c in language["cases"] if c["init"] == "different"}
    middle = gpts["0"].shape[1] // 2
    ends = [gpts[name][:, [0, -1]].mean(1) for name in ("0", "heavy")]
    gaps = [gpts[name][:, middle] - end for name, end in zip(("0", "heavy"), ends, strict=True)]
    gpt = [format_mean_std((float(x.mean()), float(x.std(ddof=1))), 3) for x in (*gaps, *ends)]
    recipe = case["settings"]["w_asym_start.1"]["anchors"]
    anchors = f"{recipe['ratio'] * 100:g} % of each unit, N(0, {recipe['scale']:g}²)"
    lines = [
        [f"{case['title']}: {anchors}", str(len(anchored)), *vit],
        ["sentences of SUBJ as characters, GPT 2x32, nats a token: *heavy anchors*", str(len(gpts["heavy"])), *gpt],
    ]
    heads = ["data, network: anchors", "pairs", "loss barrier, no anchors", "anchors", "ends, no anchors", "anchors"]
    return markdown(heads, lines)


def many(multi_fusion: Result, clients: Result) -> str:
    """What becomes of many networks: averages of 32, and a federation; accuracy without anchors and with."""
    lines = {row["method"]: row for row in multi_fusion["lines"]
             if row["case"].startswith("Fashion") and row["models"] == 32}  # fmt: skip
    averages = [lines[method]["fused"] for method in ("no anchors", "TNA, ratio 0.4")]
    members = [lines[method]["members"][0] for method in ("no anchors", "TNA, ratio 0.4")]
    served = {
        name: [
            federated.scores(federated.part(clients, case), kind, row="FedAvg", alpha=0.1, ratio=0.4)
            for kind in ("none", "pfn")
        ]
        for case, name in (("", "Fashion-MNIST MLP"), ("cifar10_cnn", "CIFAR-10 CNN"))
    }
    rows = [
        [f"32 Fashion-MNIST MLPs averaged (members {members[0]:.3f} and {members[1]:.3f})", str(lines["no anchors"]["n"]),
         *(format_mean_std(average, 3) for average in averages)],
        *([f"FedAvg, 20 clients, {name}, Dirichlet 0.1; with anchors FedPFN", str(len(scores[0])),
           *map(federated.format_scores, scores)] for name, scores in served.items()),
    ]  # fmt: skip
    return markdown(["accuracy of", "n", "no anchors", "ratio 0.4"], rows)


def claims(
    figure2: Result,
    figure4: Result,
    figure5: Result,
    anchors: Result,
    multi_fusion: Result,
    rivals: Result,
    theorem: Result,
    clients: Result,
    soups: Result,
    cold: Result,
    fresh: Result,
    minilm: Result,
    dinov2: Result,
) -> str:
    """What the paper's abstract and captions claim, what was measured here, and how far apart they are."""
    mlp, fashion, cnn = (figure2["cells"][name] for name in ("mnist_mlp", "fashion_mlp", "cifar10_cnn"))
    resnet, heavy = (figure5["cells"][name] for name in ("resnet20", "resnet20_recipe"))
    deep, narrow = (figure4["cells"][name] for name in ("h8_w200", "h2_w25"))
    recipe = find(anchors["cases"]["cnn"]["rows"]["recipe"])

    def pruned(init: str, ratio: float, case: Result = mlp, measure: str = "accuracy_midpoint") -> str:
        return format_measure(find(case, init=init, ratio=ratio, method="prune"), measure)

    def average(method: str) -> str:
        lines = [row for row in multi_fusion["lines"] if row["case"].startswith("Fashion") and row["method"] == method]
        fused, members = (format_mean_std(lines[-1][key], 3) for key in ("fused", "members"))
        return f"{fused} (members {members})"

    def matched(population: str) -> str:
        lines = [row for row in rivals["lines"] if (row["population"], row["kind"]) == (population, "weight matching")]
        return f"{format_mean_std(lines[0]['moved'], 0)} units moved, barrier {format_measure(lines[0], 'accuracy_barrier')}"

    def served(kind: str, sign: bool = False, case: str = "") -> str:
        cells = federated.part(clients, case)
        found = {name: federated.scores(cells, name, row="FedAvg", alpha=0.1, ratio=0.4) for name in ("none", kind)}
        return (
            federated.format_scores(found[kind] - found["none"], sign=True)
            if sign
            else federated.format_scores(found[kind])
        )

    def soup(ratio: float, fusion: str = "uniform soup") -> str:
        lines = [
            line
            for line in soups["summary"]
            if (line["ratio"], line["fusion"], line["split"]) == (ratio, fusion, "test")
        ]
        return format_mean_std(lines[0]["accuracy"])

    def tuned(ratio: float, regime: str) -> str:
        line = next(line for line in dinov2["summary"] if (line["regime"], line["ratio"]) == (regime, ratio))
        return format_mean_std(line["test"]["uniform soup"], 3)

    def probed(kind: str, key: str) -> str:
        line = next(line for line in minilm["summary"] if (line["length"], line["kind"]) == ("usual", kind))
        return format_mean_std(line[key]["seen, probe"], 3, sign=True)

    def cold_gain(ratio: float, seen: bool = False) -> str:
        last = cold["config"]["iterations"]
        return cold_report.cell(
            cold_report.find(cold, ratio=ratio, iteration=last, kind="fine-tuning", seen=seen), "gain"
        )

    verdicts = federated_baselines.sweep_verdicts(clients)
    duel, duel_of_cnns = (
        next(line[1] for line in federated_baselines.duels(fresh, stage) if line[0] == "FedDyn")
        for stage in ("fashion_mlp", "cifar10_cnn")
    )
    worst = max(row["share_above"] for row in theorem["rows"]) if not isinstance(theorem["rows"][0]["share_above"], list) \
        else max(max(row["share_above"]) for row in theorem["rows"])  # fmt: skip
    rows = [
        ["anchors lower the barrier between two networks", "[mask ratio](evidence.md#mask-ratio-figure-2)",
         f"Fashion-MNIST MLP, one initialization: {measured(fashion, 'same', 0)} without, {measured(fashion, 'same', 0.4)} at 0.4, "
         f"{measured(fashion, 'same', 0.8)} at 0.8", "as claimed"],
        ["the same, from different initializations (our setting; whether the paper has it we do not know)", "[mask ratio](evidence.md#mask-ratio-figure-2)",
         f"CIFAR-10 CNN: {measured(cnn, 'different', 0)} without, {measured(cnn, 'different', 0.4)} at 0.4, "
         f"{measured(cnn, 'different', 0.8)} at 0.8", "lower, not closed"],
        ["the same, heavier anchors (our recipe)", "[which anchors](evidence.md#which-anchors)",
         f"CIFAR-10 CNN, ratio 0.4: {format_measure(recipe, 'accuracy_barrier')}, ends {format_measure(recipe, 'accuracy_ends')}; "
         f"ResNet20: {measured(heavy, 'different', 0.4)}, ends {measured(heavy, 'different', 0.4, 'accuracy_ends')}",
         "ours; closes nearly all, with networks that start a tenth as far apart as usual"],
        ["anchoring is lossless", "[mask ratio](evidence.md#mask-ratio-figure-2)",
         f"ends at 0, 0.4, 0.8, 0.9, MNIST MLP: {measured(mlp, 'same', 0, 'accuracy_ends')}, "
         f"{measured(mlp, 'same', 0.4, 'accuracy_ends')}, {measured(mlp, 'same', 0.8, 'accuracy_ends')}, "
         f"{measured(mlp, 'same', 0.9, 'accuracy_ends')}", "up to 0.6 for this network; Fashion-MNIST gains at every ratio; [small MNIST MLPs](evidence.md#depth-width-figure-4) on 5,000 "
         "images lose 0.3 to 1 point at 0.4 already"],
        ["random pruning falls to chance at large ratios, anchors do not", "[mask ratio](evidence.md#mask-ratio-figure-2)",
         f"midpoint under pruning at 0.9, MNIST MLP: {pruned('same', 0.9)} (same), {pruned('different', 0.9)} (different); ends at 0.9, "
         f"Fashion-MNIST MLP: {pruned('same', 0.9, fashion, 'accuracy_ends')} pruned, {measured(fashion, 'same', 0.9, 'accuracy_ends')} anchored",
         "pruning is worse at 0.9 but does not fall to chance: pruned MLPs of this size still train; from different initializations it is the worse one"],
        ["barriers by depth and width", "[depth, width](evidence.md#depth-width-figure-4)",
         f"MNIST MLP, one initialization, 8 layers of 200: {measured(deep, 'same', 0)} without, {measured(deep, 'same', 0.4)} at 0.4; "
         f"different, 2 layers of 25: {measured(narrow, 'different', 0)} and {measured(narrow, 'different', 0.4)}",
         "same trend; from one initialization only 8 layers have a barrier to speak of, and not in all pairs; from different ones 0.4 helps "
         "least at width 25 and at 8 layers"],
        ["deep residual networks too", "[architectures](evidence.md#architectures-figure-5)",
         f"ResNet20, layer norm, one initialization: {measured(resnet, 'same', 0)} without, {measured(resnet, 'same', 0.4)} at 0.4; "
         f"different: {measured(resnet, 'different', 0)} and {measured(resnet, 'different', 0.4)}",
         "not found with plain anchors at the size two cores allow (1,000 images, 12 epochs); the full size has not been run"],
        ["many networks can be averaged", "[averages](evidence.md#averages-of-2-to-32-networks)",
         f"32 Fashion-MNIST MLPs: {average('no anchors')} without, {average('TNA, ratio 0.4')} with",
         "as claimed for MLPs and the CNN; averages of ResNet20s fall below their members with and without"],
        ["anchors spare matching after training", "[matching](evidence.md#matching-after-training)",
         f"without anchors {matched('no anchors')}; ratio 0.4 {matched('TNA, ratio 0.4')}",
         "half the units to move, and a higher barrier after it, with plain anchors; with the recipe nothing to move"],
        ["federated learning: FedPFN and FedPNU, state of the art, compatible with server-side algorithms", "[federated](federated.md#what-came-out)",
         f"Fashion-MNIST MLP, 20 clients, Dirichlet 0.1: FedAvg {served('none')}, FedPFN {served('pfn')} (paired {served('pfn', True)}), "
         f"FedPNU {served('pnu')} ({served('pnu', True)}); CIFAR-10 CNN: {served('none', case=CNN)}, {served('pfn', case=CNN)}, "
         f"{served('pnu', case=CNN)}",
         f"ahead of FedAvg, and with most algorithms and servers, not all; the best combination, FedDyn with FedPNU, has a higher mean than every "
         f"row without anchors in {len(verdicts)} small settings (13 rows with the MLP, 5 with the CNN; the MLP: {verdicts[0][2]} against {verdicts[0][1]}; on seeds that did not choose it "
         f"ahead of FedDyn by {duel}; the CNN {duel_of_cnns}), by half a point or less where clients differ less or half of them take part; the paper's baselines and sizes were not run"],
        ["soups of vision transformers are better with anchors", "[soups](soups.md#measured)",
         f"small ViT, CIFAR-10, uniform soup: {soup(0.0)} without, {soup(0.2)} at 0.2, {soup(0.4)} at 0.4; DINOv2-small, usual rates: "
         f"{tuned(0.0, USUAL)}, {tuned(0.2, USUAL)}, {tuned(0.4, USUAL)}; large rates, own heads and halves: {tuned(0.0, APART)}, {tuned(0.2, APART)}, "
         f"{tuned(0.4, APART)}",
         "as claimed, in a first look of 3 seeds, where rates are so large that plain soups fall below their members; at usual rates by 0.7 points on the "
         "small ViT, from better members, and by 1 to 2 on DINOv2, less than the error of its 240 test images"],
        ["ColD Fusion of language models is better with anchors", "[ColD](cold.md#measured)",
         f"small BERT, gain over the start, seen tasks: {cold_gain(0.0, True)} without, {cold_gain(0.2, True)} at 0.2, "
         f"{cold_gain(0.4, True)} at 0.4; unseen: {cold_gain(0.0)}, {cold_gain(0.2)}, {cold_gain(0.4)}; MiniLM, seen tasks: "
         f"{probed('none', 'gain')} without, from that {probed('elements 0.2', 'over_none')} at 0.2, {probed('elements 0.4', 'over_none')} at 0.4",
         "not found at these sizes: fusion helps, anchors slow it; on MiniLM there is no barrier that anchors could lower"],
        ["Theorem III.4: the gap of two-layer networks shrinks with the ratio", "[the theorem](theorem.md)",
         f"largest share of pairs above our bound: {worst:.4f} (allowed: {theorem['delta']:g})",
         "our own inequality; theirs is not at hand"],
    ]  # fmt: skip
    return markdown(["claim", "experiment", "measured here", "how far"], rows)
