"""Tables of federated learning."""

from collections.abc import Callable
from typing import Any

from fusion import federated, federated_baselines, federated_bytes, federated_heavy, federated_privacy
from fusion.readme_tables.kinds import Tables
from fusion.summary import markdown


def compositions(alpha: float, case: str = "", participation: float = 1.0) -> Callable[[dict[str, Any]], str]:
    """Algorithms and servers with and without anchors at one heterogeneity."""
    return lambda result: markdown(
        federated.HEADS, federated.composition(federated.part(result, case, participation), alpha)
    )


def federated_ratios(result: dict[str, Any]) -> str:
    """FedAvg by mask ratio."""
    return markdown(["ratio", "FedPFN", "FedPNU"], federated.ablation(federated.part(result)))


def federated_readings(result: dict[str, Any]) -> str:
    """The two readings of FedPNU."""
    return markdown(federated.READING_HEADS, federated.readings(federated.part(result)))


def baselines(stage: str) -> Callable[[dict[str, Any]], str]:
    """Five algorithms under the mask schedules, of one stage."""
    return lambda result: markdown(
        federated_baselines.COMPOSITION_HEADS, federated_baselines.composition(result, stage)
    )


def duels(stage: str, case: str) -> Callable[..., str]:
    """The named combinations against every algorithm without anchors, of one stage, with the seeds of the sweep's case."""

    def table(result: dict[str, Any], sweep: dict[str, Any]) -> str:
        both = federated_baselines.with_sweep(result, sweep, stage, case)
        return markdown(federated_baselines.DUEL_HEADS, federated_baselines.duels(both, stage))

    return table


def sweep_verdicts(result: dict[str, Any]) -> str:
    """The best combination against the best without anchors, by setting of the sweep from which it was named."""
    return markdown(federated_baselines.SWEEP_HEADS, federated_baselines.sweep_verdicts(result))


TABLES: Tables = {
    "federated_0.1": ("federated.json", compositions(0.1)),
    "federated_0.5": ("federated.json", compositions(0.5)),
    "federated_half_0.1": ("federated.json", compositions(0.1, participation=0.5)),
    "federated_half_0.5": ("federated.json", compositions(0.5, participation=0.5)),
    "federated_cnn_0.1": ("federated.json", compositions(0.1, "cifar10_cnn")),
    "federated_cnn_0.5": ("federated.json", compositions(0.5, "cifar10_cnn")),
    "federated_cnn_half_0.1": ("federated.json", compositions(0.1, "cifar10_cnn", 0.5)),
    "federated_cnn_half_0.5": ("federated.json", compositions(0.5, "cifar10_cnn", 0.5)),
    "federated_ratios": ("federated.json", federated_ratios),
    "federated_faults": (
        "federated.json",
        lambda result: markdown(federated.FAULT_HEADS, federated.faults(federated.part(result))),
    ),
    "federated_readings": ("federated.json", federated_readings),
    "federated_verdicts": ("federated.json", sweep_verdicts),
    "baselines_mlp": ("federated_baselines.json", baselines("fashion_mlp")),
    "duels_mlp": (("federated_baselines.json", "federated.json"), duels("fashion_mlp", "")),
    "baselines_cnn": ("federated_baselines.json", baselines("cifar10_cnn")),
    "duels_cnn": (("federated_baselines.json", "federated.json"), duels("cifar10_cnn", "cifar10_cnn")),
    "federated_bytes": (
        "federated_bytes.json",
        lambda result: markdown(federated_bytes.LINE_HEADS, federated_bytes.lines(result)),
    ),
    "federated_heavy": (
        "federated_heavy.json",
        lambda result: markdown(federated_heavy.LINE_HEADS, federated_heavy.lines(result)),
    ),
    "federated_privacy": (
        "federated_privacy.json",
        lambda result: markdown(federated_privacy.LINE_HEADS, federated_privacy.lines(result)),
    ),
}
"""By the name in the page: the results, and what makes the table of them."""
