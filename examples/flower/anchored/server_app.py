"""The server's half."""

from anchored.task import build
from fusion.flower.apps import server_app

app = server_app(build)
