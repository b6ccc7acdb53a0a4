"""Shows the examples of docstrings (`>>>`) as code: in Markdown their brackets would be links. An extension of Griffe, which reads docstrings."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?!>>> )(?!\s*$).*\n?)*)+", re.MULTILINE)
"""Lines from a prompt to the next empty one, with those that follow at once."""


class Doctests(griffe.Extension):
    """Puts a fence around every example that stands in no section of its own."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes the docstring of an object when it is loaded."""
        if obj.docstring and ">>> " in obj.docstring.value:
            obj.docstring.value = EXAMPLE.sub(
                lambda match: f"```pycon\n{match.group().rstrip()}\n```\n", obj.docstring.value
            )
