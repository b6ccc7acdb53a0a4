"""What a module of tables offers."""

from collections.abc import Callable

Tables = dict[str, tuple[str | tuple[str, ...], Callable[..., str]]]
"""By the name in the page: the result or results, and what makes the table of them."""
