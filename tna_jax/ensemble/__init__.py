"""Many models, one program: M networks with their own initial values, masks, data order and hyper-parameters.

The leading axis M of every leaf is the model. A member's numbers depend on its own slice alone, so a member that diverges
disturbs no other, and `map`, `vmap` and `loop` (see `tna_jax.placement`) only change the speed. Anchored entries are
copied from step to step, never computed.
"""

from tna_jax.ensemble.epochs import epoch_program, train_epoch
from tna_jax.ensemble.members import Members, examples_of, init_ensemble, member, trained_part, with_trained
from tna_jax.ensemble.papa import Papa, pull
from tna_jax.ensemble.steps import AUGMENT, NETWORK, PREPARE, batch_indices, numbered_step, train_step
from tna_jax.ensemble.trainer import Batch, Hyper, Trainer
from tna_jax.ensemble.training import to_host, train_ensemble
from tna_jax.ensemble.turns import turn_programs
from tna_jax.ensemble.validation import check_data, network_inputs, resolve

__all__ = [
    "AUGMENT", "NETWORK", "PREPARE", "Batch", "Hyper", "Members", "Papa", "Trainer", "batch_indices", "check_data",
    "epoch_program", "examples_of", "init_ensemble", "member", "network_inputs", "numbered_step", "pull", "resolve",
    "to_host", "train_ensemble", "train_epoch", "train_step", "trained_part", "turn_programs", "with_trained",
]  # fmt: skip
