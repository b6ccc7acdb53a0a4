"""ViT, BERT and RoBERTa as plain NumPy forward passes, and small ones with inputs and random parameters to compare."""

import math

import jax
import jax.numpy as jnp
import numpy as np

SIZES = {"width": 12, "depth": 2, "heads": 3, "mlp": 20}
VIT = SIZES | {"patch": 4, "num_classes": 5}
BERT = SIZES | {"vocab": 30, "positions": 16, "types": 2, "num_classes": 4}
ROBERTA = BERT | {"pad_id": 1}
SHALLOW = {"depth": 1}
KEY = jax.random.key(0)


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def tokens(pad=0):
    """Ids from 3 on, with padding at different places of rows 1 to 3."""
    ids = np.random.default_rng(2).integers(3, 30, (4, 7)).astype(np.int32)
    ids[1, 5:] = ids[2, 2:4] = ids[3, 1:] = pad
    return ids


def random_params(model, *inputs):
    """Values that keep the signal's size; no leaf is 0 or 1 throughout."""
    draws = np.random.default_rng(0)

    def draw(path, leaf):
        spread = leaf.shape[-2] ** -0.5 if path[-1].key == "kernel" else 0.3
        return jnp.asarray(draws.normal(size=leaf.shape, scale=spread) + (path[-1].key == "scale"), jnp.float32)

    return jax.tree.map_with_path(draw, jax.eval_shape(lambda: model.init(KEY, *inputs))["params"])


def run(model, params, *inputs, **more):
    static = {name: more.pop(name) for name in ("train",) if name in more}
    return np.asarray(
        jax.jit(lambda p, *x, **more: model.apply({"params": p}, *x, **static, **more))(params, *inputs, **more)
    )


# A forward pass in NumPy, float64, one token and one head after the other.


def dense(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + np.asarray(p.get("bias", 0), np.float64)


def norm(p, x, eps):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps) * np.asarray(p["scale"]) + np.asarray(
        p["bias"]
    )


def gelu(x):
    return x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def attend(p, x, counts, heads):
    """One example: (T, D) and which tokens count (T,)."""
    query, key, value = (dense(p[name], x) for name in ("query", "key", "value"))
    size = x.shape[-1] // heads
    found = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(len(x)):
            weights = np.exp(key[counts, part] @ query[i, part] / math.sqrt(size))
            found[i, part] = (weights / weights.sum()) @ value[counts, part]
    return dense(p["out"], found)


def blocks(p, x, counts, eps, first):
    for i in range(SIZES["depth"]):
        q = p[f"layer_{i}"]
        if first:
            x = x + attend(q, norm(q["norm1"], x, eps), counts, SIZES["heads"])
            x = x + dense(q["down"], gelu(dense(q["up"], norm(q["norm2"], x, eps))))
        else:
            x = norm(q["norm1"], x + attend(q, x, counts, SIZES["heads"]), eps)
            x = norm(q["norm2"], x + dense(q["down"], gelu(dense(q["up"], x))), eps)
    return x


def reference_vit(p, x, head, eps=1e-12):
    body, patch, found = p["body"], VIT["patch"], []
    for image in np.asarray(x, np.float64):
        rows, columns = image.shape[0] // patch, image.shape[1] // patch
        cut = [
            image[r * patch : (r + 1) * patch, c * patch : (c + 1) * patch] for r in range(rows) for c in range(columns)
        ]
        kernel = np.asarray(body["patches"]["kernel"], np.float64)
        embedded = [np.tensordot(piece, kernel, 3) + np.asarray(body["patches"]["bias"]) for piece in cut]
        y = np.stack([np.asarray(body["cls_token"])[0, 0], *embedded]) + np.asarray(body["positions"])[0]
        y = norm(body["norm"], blocks(body, y, np.ones(len(y), bool), eps, True), eps)
        ends = {"classes": lambda y: dense(p["head"], y[0]), "none": lambda y: y,
                "pooled": lambda y: np.tanh(dense(body["pooler"]["dense"], y[0]))}  # fmt: skip
        found.append(ends[head](y))
    return np.stack(found)


def reference_bert(p, ids, types, head, kind, pad, eps=1e-12):
    body, found = p["body"], []
    tables = {name: np.asarray(body[name]["embedding"], np.float64) for name in ("words", "positions", "types")}
    for row, kinds in zip(ids, types, strict=True):
        places, place = [], pad
        for i, token in enumerate(row):
            place += token != pad
            places.append(i if kind == "bert" else place if token != pad else pad)
        y = tables["words"][row] + tables["positions"][places] + tables["types"][kinds]
        y = blocks(body, norm(body["norm"], y, eps), row != pad, eps, False)
        if head == "pooled" or (head, kind) == ("classes", "bert"):
            y = np.tanh(dense(body["pooler"]["dense"], y[0]))
        if head == "masked_lm":
            y = norm(p["head"]["norm"], gelu(dense(p["head"]["dense"], y)), eps)
            y = y @ tables["words"].T + np.asarray(p["head"]["bias"])
        elif head == "classes":
            y = (
                dense(p["head"], y)
                if kind == "bert"
                else dense(p["head"]["out"], np.tanh(dense(p["head"]["dense"], y[0])))
            )
        found.append(y)
    return np.stack(found)
