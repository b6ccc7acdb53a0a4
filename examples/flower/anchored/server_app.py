"""The server's half."""

from anchored.task import build
from tna_jax.flower.apps import server_app

app = server_app(build)
