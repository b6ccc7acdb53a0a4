"""One GPU: what the placements give there, and how far they are from PyTorch and from the card's own speed.

Hardware: one NVIDIA GPU that JAX (`jax[cuda12]`) and PyTorch with CUDA share. About 8 minutes on an H100 expected for the most
models (`--models 256,32`), up to 25 for all, not measured; compilation takes most of it. `results/gpu_mlp.json` and
`results/gpu_convolutions.json` are one case each, 64 MLPs and 8 ResNet20s in TF32 on an H100. `--smoke` runs on the CPU in
under a minute, to see that it works.

    python -m benchmarks.gpu [--models 256,32] [--sections mlp,path] [--budget-seconds 500] [--output FILE] [--hlo FOLDER]
    python -m benchmarks.gpu --sections ways --precisions tf32,bf16 --models 64,8 --budget-seconds 400 \
        --flags=--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUDNN,WHILE --output FILE

The second, with and without its flags, is what is left to try of launches: 4 % of the card's rate is what many small kernels
leave of it. One model alone (`one`) and `map` of many are what it must beat. `--flags` may be unknown to a version of XLA, which then
stops at once and says so.

Five sections; the cases that matter most come first in each, and the file is written after every case:

- `mlp`: 784-512-512-10, batch 128, on 60,000 random images, `vmap` and `map` of up to 256 models. Goal: ten MNIST epochs of
  256 models within 3 times the arithmetic limit.
- `path`: 64 pairs x 25 alphas of that MLP on 10,000 images. Goal: 50 % of the limit of the forward passes.
- `convolutions`: the CNN and ResNet20 on 32x32x3, batch 128, `vmap` with XLA's (then grouped) convolution and with slices, `map`
  and `loop`. Goal: 32 ResNet20 at 5 times the throughput of one after the other.
- `ways`: what may bring the most models nearer to the limit: larger batches, more steps in one iteration of the compiled loop.
- `instructions`: what the faster and the slower `vmap` of the most ResNet20s were compiled to.

`one` is one model trained alone by our program, `torch` one in eager PyTorch (masked gradients, fused SGD, no CUDA graphs):
M models one after the other take M times as long, so their throughput (models x images per second) is that of one. The limit
is the rate of one large matrix product of ones in JAX (`product_rate`), same run and precision: an upper one, as a card under
its power limit multiplies ones faster than random numbers. Precisions: float32 in full, tf32, and bf16 (parameters float32;
PyTorch: autocast). Alternatives of a case take turns; a failure (out of memory, no PyTorch) is recorded as text in its place.

The rule of `--placement auto` for GPUs (`tna_jax.placement.automatic`: `map` with convolutions, `vmap` without) follows these results.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.85")  # the rest of the card is PyTorch's
