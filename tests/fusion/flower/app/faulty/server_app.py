"""The server's half, which is sound."""

from fusion.flower.apps import server_app
from fusion.flower.settings import build

app = server_app(build)
