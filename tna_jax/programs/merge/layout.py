"""Which leaf of a network's parameters each tensor of a Hugging Face folder is, for models whose hidden units are matched."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tna_jax import trees
from tna_jax.hf import config as hf_config
from tna_jax.hf import loading, names, validation
from tna_jax.hf.model_types import architecture
from tna_jax.io.errors import UsageError
from tna_jax.io.tensor_headers import Checkpoint, Tensor
from tna_jax.matching import axes
from tna_jax.matching.heads import HeadMatching, head_indices
from tna_jax.matching.permutations import PermutationSpec
from tna_jax.programs.merge.unmergeable import configuration

MASK_TOKEN = "embeddings.mask_token"
POOLER = "body/pooler/dense/"


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which leaf of a network's parameters each tensor of a model is."""

    kind: str
    module: Any
    pooled: bool
    """Whether the model has a pooler that the module's own head does not read."""
    leaves: dict[str, names.Place]
    """By path of a leaf, where it stands."""
    readouts: dict[str, str]
    """Dense layers of heads that are not known here, by the name of their tensor; on what they stand: `tokens` or `pooled`."""
    alike: dict[str, tuple[str, tuple[int, ...]]]
    """Tensors whose axes are those of a leaf: by name, its path, and which of the leaf's axes each is."""

    def network(self, params: Any, x: jax.Array) -> Any:
        """Computes all that the model's heads compute: whatever nobody reads stays as it is."""
        body = {"params": {"body": params["body"]}}
        outputs = []
        if self.module.head not in ("pooled", "none"):
            outputs.append(
                self.module.apply({"params": {name: params[name] for name in ("body", "head") if name in params}}, x)
            )
        for on in ("tokens", "pooled"):
            kernels = [params["readouts"][name] for name, of in self.readouts.items() if of == on]
            if kernels or (on == "pooled" and self.pooled):
                values = self.module.clone(head="none" if on == "tokens" else on).apply(body, x)
                outputs += [jnp.einsum("...d,kd->...k", values, kernel) for kernel in kernels] or [values]
        return outputs or [self.module.apply(body, x)]

    def params(self, checkpoint: Checkpoint, held: dict[str, str]) -> dict[str, Any]:
        """Reads a model as float32 leaves (float64 too: only the order is taken from them).

        Args:
          checkpoint: the model.
          held: by canonical name, what its file calls a tensor.
        """

        def read(name: str) -> np.ndarray:
            return checkpoint.tensors[held[name]].read().astype(np.float32)

        leaves = {path: place.inward(read(place.name)) for path, place in self.leaves.items()}
        tree = loading.tree(leaves)
        return tree | {"readouts": {name: read(name).reshape(-1, self.module.width) for name in self.readouts}}

    def tensors(self, params: Any, held: dict[str, str]) -> dict[str, np.ndarray]:
        """Returns the tensors of a model, by what its file calls them, whose leaves these are.

        Args:
          params: as `params` reads them.
          held: as there.
        """
        by_path = {trees.name(path): np.asarray(leaf) for path, leaf in trees.named_leaves(params)}
        values = {held[place.name]: place.outward(by_path[path]) for path, place in self.leaves.items()}
        return values | {held[name]: by_path[f"readouts/{name}"] for name in self.readouts}

    def orders(self, spec: PermutationSpec, found: HeadMatching, name: str) -> dict[int, np.ndarray]:
        """Returns, by axis of a tensor, which of its entries comes where."""
        by_path = {trees.name(path): leaf for path, leaf in spec.params.items()}
        places = {place.name: path for path, place in self.leaves.items()}
        if name in self.alike:
            path, order = self.alike[name]
        elif name in self.readouts:
            path, order = f"readouts/{name}", (0, 1)
        elif name in places:
            path = places[name]
            order = self.leaves[path].axes or tuple(range(len(by_path[path])))
        else:
            return {}
        leaf = by_path[path]
        permutation = found.matching.permutation
        return {
            i: head_indices(leaf[k], found.nested, permutation) for i, k in enumerate(order) if axes.groups(leaf[k])
        }


def find_layout(checkpoint: Checkpoint, kind: str, tensors: dict[str, Tensor]) -> Layout:
    """Finds what each tensor of a model is; raises UsageError that names those that are missing or not known."""
    config: dict[str, Any] = configuration(checkpoint)
    where = str(checkpoint.path)
    head = _head(kind, config, tensors, where)
    count = validation.num_classes(kind, tensors)
    module = hf_config.build(kind, config, head, count, {}, where)
    channels = config.get("num_channels", 3)
    if hf_config.type_of(module) in hf_config.VISION:
        module = module.clone(interpolate=True)
    leaves = _leaves(kind, module, channels, len(tensors))
    pooled = head == "pooled"
    if not any(path.startswith(POOLER) for path in leaves) and _has_pooler(tensors):
        more = _leaves(kind, module.clone(head="pooled"), channels, len(tensors))
        leaves |= {path: place for path, place in more.items() if path.startswith(POOLER)}
        pooled = True
    known = {place.name: path for path, place in leaves.items()}
    missing = [name for name in known if name not in tensors]
    if missing:
        raise UsageError(f"--match: {where} does not hold what its config.json says; missing: {', '.join(missing)}")
    shapes = hf_config.shapes_of(module, channels)
    wrong = [f"{leaves[p].name} ({list(tensors[leaves[p].name].shape)} instead of {list(leaves[p].shape(shape))})"
             for p, shape in shapes.items() if tensors[leaves[p].name].shape != leaves[p].shape(shape)]  # fmt: skip
    extra = {
        name: tensor for name, tensor in tensors.items() if name not in known and not name.endswith(validation.BUFFERS)
    }
    copies = {name: known[of] for name, of in names.tied_copies(kind).items() if name in extra and of in known}
    alike = {name: (path, leaves[path].axes or tuple(range(len(extra[name].shape)))) for name, path in copies.items()}
    alike |= {
        name: ("body/cls_token", (0, 1, 2)[3 - len(extra[name].shape) :]) for name in extra if name.endswith(MASK_TOKEN)
    }
    readouts = {
        name: "pooled" if pooled and name.startswith(ON_POOLER) else "tokens"
        for name, tensor in extra.items() if name not in alike and _reads(kind, name, tensor, module.width)
    }  # fmt: skip
    plain = {f"{name.removesuffix('weight')}bias" for name in (*readouts, "score.weight")}
    strange = [f"{name} {list(t.shape)}" for name, t in extra.items() if name not in {*alike, *readouts, *plain}]
    if strange or wrong:
        what = [f"of another shape: {', '.join(wrong)}"] if wrong else []
        what += [f"of which it is not known what they read: {', '.join(strange)}"] if strange else []
        raise UsageError(f"--match: tensors of {where} {'; '.join(what)}")
    return Layout(kind, module, pooled, leaves, readouts, alike)


ON_POOLER = ("cls.seq_relationship.", "classifier.")
"""Heads that stand on a pooler, where there is one."""


def _has_pooler(tensors: dict[str, Tensor]) -> bool:
    return any(name.endswith(".pooler.dense.weight") for name in tensors)


def _reads(kind: str, name: str, tensor: Tensor, width: int) -> bool:
    """Whether a tensor is the kernel of a dense layer (out, width) on the body, which no other layer can be thought to follow."""
    shape = tensor.shape
    return (
        not names.in_body(kind, name)
        and len(shape) > 1
        and shape[1] == width != shape[0]
        and tensor.size == shape[0] * width
    )


def _leaves(kind: str, module: Any, channels: int, most: int) -> dict[str, names.Place]:
    shapes = hf_config.shapes_of(module, channels, most)
    return {path: names.place(kind, module.head, path, len(shape)) for path, shape in shapes.items()}


def _head(kind: str, config: dict[str, Any], tensors: dict[str, Tensor], where: str) -> str:
    """Returns the kind of head of our module: that of the folder where it is known here and there, else none."""
    bare = "pooled" if _has_pooler(tensors) else "none"
    of = architecture(kind)

    def there(head: str) -> bool:
        tied = head == "causal_lm" and config.get("tie_word_embeddings") is True
        table = {} if tied else names.HEADS.get((of, head), {})
        body = of != "bert" or head != "classes" or _has_pooler(tensors)
        return body and all(any(name.startswith(f"{theirs}.") for name in tensors) for theirs in table.values())

    try:
        head = validation.head_of(kind, config, set(tensors), None, where)
    except UsageError:  # of another kind, but perhaps of the same layers: several choices for a classifier's classes
        head = next((head for holder, head in names.HEADS if holder == of and there(head)), bare)
    return head if there(head) else bare


def read(layout: Layout, other: Checkpoint, held: dict[str, str]) -> Any:
    """Reads another model; raises UsageError that names the tensors which it lacks, or which are not finite."""
    lacking = [name for name in held.values() if name not in other.tensors]
    if lacking:
        raise UsageError(f"--match: {other.path} lacks {', '.join(lacking)}")
    params = layout.params(other, held)
    require_finite(other, params, layout)
    return params


def require_finite(checkpoint: Checkpoint, params: Any, layout: Layout) -> None:
    """Raises UsageError that names the tensors of a model which hold NaN or infinite entries."""
    names_of = {path: place.name for path, place in layout.leaves.items()} | {
        f"readouts/{n}": n for n in layout.readouts
    }
    wrong = [names_of[path] for path in trees.names_not_finite(params)]
    if wrong:
        raise UsageError(
            f"--match: {checkpoint.path} holds values that are not finite: {', '.join(wrong)}. A model that diverged should be left out"
        )
