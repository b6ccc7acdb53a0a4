"""The server's half, which is sound."""

from tna_jax.flower import server_app
from tna_jax.programs.federate.flower_settings import build

app = server_app(build)
