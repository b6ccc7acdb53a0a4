"""Fine-tuning steps of four MiniLMs: at once, one by one, with the table of words frozen, and by PyTorch with transformers.

All of them on the processor's cores, batch 32 of 32 tokens, AdamW, gradients clipped at norm 1, in turns in one process. Of PyTorch
and transformers it needs a CPU build (PYTHONPATH will do); without them their row is left out. The model: `tna fetch minilm`.

Command: `python -m benchmarks.minilm [ROUNDS]`
"""

import statistics
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks.timing import paired, ratio, report
from tna_jax import backend, ensemble, finetuning
from tna_jax.ensemble import Trainer
from tna_jax.masks import AnchorRecipe
from tna_jax.programs.training import backbone

MODELS, BATCH, LENGTH, STEPS, CLASSES = 4, 32, 32, 1, 2
CASES = {
    "all trained": None,
    "table of words frozen": "words/",
    "table and lower 4 layers frozen": r"words|positions|types|body/norm|layer_[0-3]/",
}
RATE = 5e-4


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Returns tokens (N, 2, L), without padding, and labels (N,)."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1000, 30000, (BATCH * STEPS, LENGTH))
    return np.stack([ids, np.zeros_like(ids)], 1).astype(np.int32), rng.integers(0, CLASSES, len(ids)).astype(np.int32)


def ours(checkpoint: str, freeze: str | None, data: Any) -> dict[str, Callable[[], Any]]:
    """Returns steps of all models at once, and of one after the other."""
    loaded = backbone.for_text(checkpoint, LENGTH, CLASSES)
    trainer = Trainer(loaded.network, finetuning.adamw(100, 10), BATCH, "map", freeze=freeze)
    mask = AnchorRecipe(ratio=0.4, where="^(?!head)", freeze=freeze).draw(loaded.params)

    def members(count: int) -> ensemble.Members:
        params, masks = jax.tree.map(lambda x: np.stack([np.asarray(x)] * count), (loaded.params, mask))
        hyper = finetuning.stack([finetuning.FinetuneConfig(RATE, 0.01)] * count)
        return ensemble.init_ensemble(trainer, params, jax.random.split(jax.random.key(0), count), masks, hyper)

    together, alone = members(MODELS), members(1)

    def step(state: ensemble.Members) -> None:
        jax.block_until_ready(ensemble.train_ensemble(trainer, state, *data, 1)[0].params)

    def one_by_one() -> None:
        for _ in range(MODELS):
            step(alone)

    return {"at once": lambda: step(together), "one by one": one_by_one}


def theirs(checkpoint: str, data: Any) -> dict[str, Callable[[], Any]]:
    """Returns the same steps by PyTorch, one model after the other; nothing where it is not installed."""
    try:
        import torch
        from transformers import AutoModelForSequenceClassification
    except ImportError:
        return {}
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=CLASSES)
    model.eval()  # without dropout, as ours
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    ids, labels = torch.tensor(data[0][:, 0], dtype=torch.long), torch.tensor(data[1], dtype=torch.long)

    def steps() -> None:
        for _ in range(MODELS * STEPS):
            optimizer.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    return {"PyTorch": steps}


def main() -> None:
    """Measures all cases and writes benchmarks/results/minilm.json."""
    backend.configure(members=MODELS)
    checkpoint, data = str(backbone.locate("minilm")), examples()
    runs = {
        f"{case}, {how}": step for case, freeze in CASES.items() for how, step in ours(checkpoint, freeze, data).items()
    }
    runs |= theirs(checkpoint, data)
    seconds = paired(runs, int(sys.argv[1]) if sys.argv[1:] else 3)
    a_step = {name: statistics.median(values) / MODELS / STEPS for name, values in seconds.items()}
    speedups = {case: ratio(seconds, f"{case}, one by one", f"{case}, at once") for case in CASES}
    pytorch = {case: ratio(seconds, "PyTorch", f"{case}, at once") for case in CASES} if "PyTorch" in seconds else {}
    report("minilm", {"models": MODELS, "batch_size": BATCH, "length": LENGTH, "devices": jax.device_count(), "seconds_a_step": a_step,
                      "one_by_one_over_at_once": speedups, "pytorch_over_at_once": pytorch, "seconds": seconds})  # fmt: skip


if __name__ == "__main__":
    main()
