"""What a Hugging Face folder holds against what a module needs: every difference is found before a tensor is read."""

from typing import Any

import numpy as np

from tna_jax.hf.model_types import ARCHITECTURES, TYPES, architecture
from tna_jax.hf.names import HEADS, Place, in_body, tied_copies
from tna_jax.io.errors import UsageError, unknown
from tna_jax.io.tensor_headers import Tensor

BUFFERS = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    ".attn.bias",
    ".attn.masked_bias",
    "rotary_emb.inv_freq",
)
"""Constants that old files hold."""
CHOICES = ("classes", "masked_lm", "causal_lm", "pooled", "none", "new")


def head_of(kind: str, config: dict[str, Any], names: set[str], asked: str | None, where: str) -> str:
    """Returns the kind of head a module gets: the one asked for, or that of the folder.

    Raises:
      UsageError: an unknown head, or an architecture whose head we do not have (and none was asked for).
    """
    known = [head for head in CHOICES if head == "new" or (kind, head) in ARCHITECTURES]
    if asked is not None and asked not in known:
        raise unknown("head", asked, known)
    if asked is not None:
        return "classes" if asked == "new" else asked
    of = architecture(kind)
    bare = "pooled" if f"{TYPES[kind].prefix}.pooler.dense.weight" in names else "none"
    named = next(iter(config.get("architectures") or [None]))
    if named is None:
        return next((head for (holder, head), table in HEADS.items() if holder == of and _holds(table, names)), bare)
    heads = [head for (of, head), name in ARCHITECTURES.items() if of == kind and name == named]
    if not heads:
        raise UsageError(
            f"{where} is a {named}, whose head is not known here: choose a head, one of {', '.join(known)}; none and new drop "
            "the folder's"
        )
    return bare if "none" in heads else heads[0]


def _holds(table: dict[str, str], names: set[str]) -> bool:
    return all(any(name.startswith(f"{theirs}.") for name in names) for theirs in table.values())


def num_classes(kind: str, tensors: dict[str, Tensor]) -> int:
    """Returns the number of classes of the folder's classifier; 2, with which it is then missed, if it has none."""
    *_, name = HEADS[architecture(kind), "classes"].values()
    last = f"{name}.weight"
    return tensors[last].shape[0] if last in tensors and tensors[last].shape else 2


def compare(
    kind: str,
    tensors: dict[str, Tensor],
    shapes: dict[str, tuple[int, ...]],
    places: dict[str, Place],
    asked: str | None,
    where: str,
) -> tuple[list[str], list[str]]:
    """Compares what a folder holds with what a module needs.

    Args:
      tensors: of the folder, by `names.canonical` name.
      shapes, places: of our leaves, by path.
      asked: the head that was asked for, if any: then all other heads are dropped, known here or not. A new one's leaves are
        new, and so are those of a pooler that is not there.

    Returns:
      Our leaves that the folder lacks and that may be new, and its tensors that are dropped.

    Raises:
      UsageError: tensors are missing, too many, of another shape or not floating-point; all are listed.
    """
    new = [path for path, place in places.items() if asked == "new" and (path.startswith("head") or place.name not in tensors)
           and path.startswith(("head", "body/pooler/"))]  # fmt: skip
    expected = {places[path].name: places[path].shape(shape) for path, shape in shapes.items() if path not in new}
    of = architecture(kind)
    heads = (
        *(f"{name}." for (holder, _), table in HEADS.items() if holder == of for name in table.values()),
        "cls.seq_relationship.",
    )
    idle = tuple(f"{TYPES[kind].prefix}.{name}" for name in ("pooler.", "embeddings.mask_token"))
    copies = tied_copies(kind)

    def droppable(name: str) -> bool:
        other = not in_body(kind, name) if asked is not None else name.startswith(heads)
        return other or name in copies or name.startswith(idle)

    extra = [name for name in tensors if name not in expected and not name.endswith(BUFFERS)]
    dropped = [name for name in extra if droppable(name)]
    lists = {
        "missing": [name for name in expected if name not in tensors],
        "too many": [name for name in extra if name not in dropped],
        "of another shape": [
            f"{name} ({list(tensors[name].shape)} instead of {list(shape)})"
            for name, shape in expected.items()
            if name in tensors and tensors[name].shape != shape
        ],
        "not floating-point": [
            f"{n} ({tensors[n].kind})" for n in expected if n in tensors and not tensors[n].floating
        ],
    }
    problems = "; ".join(f"{title}: {', '.join(names)}" for title, names in lists.items() if names)
    if problems:
        raise UsageError(f"{where} does not hold what its config.json says; {problems}")
    return new, dropped


def check_tied(kind: str, tensors: dict[str, Tensor], config: dict[str, Any], where: str) -> None:
    """Raises UsageError unless the last kernel of a head that predicts words is the words' table."""
    held = [(copy, of) for copy, of in tied_copies(kind).items() if copy in tensors and of in tensors]
    differing = [copy for copy, of in held if not _equal(tensors[copy], tensors[of])]
    if config.get("tie_word_embeddings", True) is False or differing:
        what = ", ".join(differing) or "tie_word_embeddings is false"
        raise UsageError(f"{where}: its last kernel is not the table of words, which this head of ours takes: {what}")


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(np.array_equal(a.read(), b.read()))
