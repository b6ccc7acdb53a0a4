"""Formulas as MathML, which every browser of today draws itself: no script, no font, no network."""

import html
import re

from latex2mathml.converter import convert

FENCE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
DISPLAYED = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
FORMULA = re.compile(r'<(?:span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</(?:span|div)>', re.DOTALL)
MARK = r"\displayed "
SPELT = {r"\lVert": r"\Vert", r"\rVert": r"\Vert", r"\square": "□", r"\Big[": r"\left[", r"\Big]": r"\right]",
         r"\Big(": r"\left(", r"\Big)": r"\right)", r"\big[": r"\left[", r"\big]": r"\right]", r"\big(": r"\left(",
         r"\big)": r"\right)"}  # fmt: skip
"""Commands that the converter does not know, and what it draws alike."""


def on_page_markdown(markdown, page, config, files):
    """Lets a displayed formula stand inside a paragraph or a list."""
    parts = FENCE.split(markdown)
    parts[::2] = [
        DISPLAYED.sub(lambda match: f"${MARK}{' '.join(match.group(1).split())}$", part) for part in parts[::2]
    ]
    return "".join(parts)


def on_page_content(content, page, config, files):
    """Replaces every formula of the page."""
    return FORMULA.sub(lambda match: mathml(html.unescape(match.group(1))), content)


def mathml(formula: str) -> str:
    """A formula in LaTeX as MathML."""
    block = formula.startswith(MARK)
    formula = formula.removeprefix(MARK)
    for command, known in SPELT.items():
        formula = formula.replace(command, known)
    return convert(formula, display="block" if block else "inline")
