"""The client's half."""

from anchored.task import build
from fusion.flower.apps import client_app

app = client_app(build)
