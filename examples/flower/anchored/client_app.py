"""The client's half."""

from anchored.task import build
from tna_jax.flower import client_app

app = client_app(build)
