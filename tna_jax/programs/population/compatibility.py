"""Whether models were trained to be averaged with each other, read from what their runs say of their anchors and initial values."""

from typing import Any

from tna_jax.programs.cli.messages import print_warning

ANCHORS = ("anchors", "where", "soft", "anchor_values", "anchor_scale")
"""The options that, with a seed and a ratio, say which anchors a model has."""


def warn(models: list[dict[str, Any]], configs: list[dict[str, Any]]) -> list[str]:
    """Prints and returns `warnings`."""
    sentences = warnings(models, configs)
    for sentence in sentences:
        print_warning(sentence)
    return sentences


def warnings(models: list[dict[str, Any]], configs: list[dict[str, Any]]) -> list[str]:
    """Returns what speaks against comparing or averaging the models, in sentences; nothing where they share anchors and start.

    Args:
      models: what plan.json says of each: seed, ratio, method, start. Models that do not say it (imported ones) are passed over.
      configs: the configuration of each model's run.
    """
    known = [
        (model, {key: config.get(key) for key in ANCHORS})
        for model, config in zip(models, configs, strict=True)
        if all(_number(model.get(name)) for name in ("seed", "ratio", "start"))
    ]
    recipes = list(dict.fromkeys(_recipe(model, anchors) for model, anchors in known))
    starts = {(model["seed"], model["start"]) for model, _ in known}
    if len(recipes) > 1:
        return [
            f"These models do not share their anchors ({'; '.join(recipes[:4])}{'; ...' if len(recipes) > 4 else ''}): they were "
            "not trained to be averaged. Train them with one --seed and one --ratio."
        ]
    if len(starts) > 1 and recipes == [PLAIN]:
        return [
            f"These models start from {len(starts)} initial values and share no anchors: their neurons come out in different "
            "orders. Anchors (--ratio 0.4) or matching (tna rebasin) may help."
        ]
    if len(starts) > 1:
        return [
            f"These models start from {len(starts)} initial values (with shared anchors): do not compare their barriers with "
            "those of models of one initialization, which are lower."
        ]
    return []


PLAIN = "no anchors"


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _recipe(model: dict[str, Any], anchors: dict[str, Any]) -> str:
    """Describes the anchors of a model in words."""
    if not model["ratio"]:
        return PLAIN
    options = [f"{key} {value}" for key, value in anchors.items() if value not in (None, "bernoulli", "initial", 1.0)]
    pruned = ["pruned"] if model.get("method") == "prune" else []
    return ", ".join([f"ratio {model['ratio']:g} seed {model['seed']}", *pruned, *options])
