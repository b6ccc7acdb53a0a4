"""The table of the page "Which networks can be matched": the rules of tracing, from the table in the code."""

from tna_jax.matching.operations import OPERATIONS

MARK = "<!-- operations -->"


def on_page_markdown(markdown, page, config, files):
    """Puts the table where the page asks for it."""
    return markdown.replace(MARK, table())


def table() -> str:
    """The table in Markdown: families, what becomes of hidden units, the primitives."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, known in OPERATIONS.items():
        rows.setdefault((known.family, known.law), []).append(f"`{name}`")
    lines = ["| kind | hidden units on the axes | primitives |", "| --- | --- | --- |"]
    lines += [f"| {family} | {law} | {', '.join(sorted(names))} |" for (family, law), names in sorted(rows.items())]
    return "\n".join(lines)
