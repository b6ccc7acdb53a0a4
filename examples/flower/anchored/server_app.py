"""The server's half."""

from anchored.task import build
from tna_jax.flower import server_app

app = server_app(build)
