"""What another machine said, fit for a log and a report: on one line, without control characters, and not too long."""

from typing import Any

MOST = 200
"""Characters."""


def sanitize(value: Any, most: int = MOST) -> str:
    """Returns text as it is, anything else as Python writes it; what is not printable is escaped, what is too long is cut."""
    text = value if isinstance(value, str) else repr(value)
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:most])
    return plain if len(text) <= most and len(plain) <= most else f"{plain[:most]}..."


def describe_error(error: Exception) -> str:
    """Says why an answer that could not be read is refused."""
    return f"its answer cannot be read ({type(error).__name__}: {sanitize(str(error))})"
