"""A table as lines of text. Numbers are never broken: heads and names go over several lines, and wide tables are set in pieces."""

from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tna_jax.programs.reports.blocks import Table

GAP = 2
"""Spaces between two columns."""
FOLD = 20
"""Width of a column of names, where more columns find room if long names go over several lines."""


def lines(table: Table, console: Console) -> list[Text]:
    """Returns the lines of a table, none wider than the console: its pieces one after the other, each with an empty line below."""
    indices = range(len(table.heads))
    least = [max([*(cell_len(row[i]) for row in table.rows), *map(cell_len, table.heads[i].split())], default=0) for i in indices]  # fmt: skip
    cut = pieces([width + GAP for width in least], table.keys, console.width + GAP)
    folded = [min(least[i], _longest_word(table, i)) if i < table.keys else least[i] for i in indices]
    if len(shorter := pieces([width + GAP for width in folded], table.keys, console.width + GAP)) < len(cut):
        least, cut = folded, shorter
    text = []
    for number, columns in enumerate(cut):
        caption = table.caption if columns[0] == 0 else f"{table.caption}, by {table.heads[0]}"
        text += [*(Text(caption, style="italic").wrap(console, console.width) if number == 0 else ()),
                 *_piece(table, columns, least, console), Text()]  # fmt: skip
    return text


def pieces(widths: list[int], keys: int, room: int) -> list[list[int]]:
    """Returns the columns of each piece of a table: what names the rows, and as many others as there is room for.

    If all do not fit, the first of several keys stands above its rows instead of beside them.
    """
    columns = list(range(len(widths)))
    if sum(widths) <= room or len(widths) <= keys + 1:
        return [columns]
    names = columns[1 if keys > 1 else 0 : keys]
    cut: list[list[int]] = [list(names)]
    for column in columns[keys:]:
        if len(cut[-1]) > len(names) and sum(widths[i] for i in (*cut[-1], column)) > room:
            cut.append(list(names))
        cut[-1].append(column)
    return cut


def _longest_word(table: Table, column: int) -> int:
    """Returns the width at which names of rows are set in several lines."""
    return max([FOLD, *(cell_len(word) for row in table.rows for word in row[column].split())])


def _piece(table: Table, columns: list[int], least: list[int], console: Console) -> list[Text]:
    """Returns the lines of a piece: heads, a rule, and rows, with an empty line between groups."""
    widths = _widths([table.heads[i] for i in columns], [least[i] for i in columns], console.width)
    left = [i < table.keys and any(not _is_number(row[i]) for row in table.rows) for i in columns]
    rule = ("-" if console.options.ascii_only else "─") * (sum(widths) + GAP * (len(widths) - 1))
    text = [
        Text(line, style="bold") for line in _row([table.heads[i] for i in columns], widths, left, console, bottom=True)
    ]
    text.append(Text(rule))
    last = None
    for row in table.rows:
        if table.keys > 1 and row[0] != last:
            text += [Text()] if last is not None else []
            text += [] if 0 in columns else [Text(f"{table.heads[0]} {row[0]}" if _is_number(row[0]) else row[0])]
        last = row[0]
        text += map(Text, _row([row[i] for i in columns], widths, left, console))
    return text


def _is_number(cell: str) -> bool:
    return cell.replace(".", "").isdigit()


def _widths(heads: Sequence[str], least: Sequence[int], room: int) -> list[int]:
    """Returns the width of each column: heads have as few lines as they can, and what is too wide even so is folded where it is widest."""
    widths = list(least)
    room -= GAP * (len(widths) - 1)
    for count in range(1, max((len(head.split()) for head in heads), default=0) + 1):
        roomy = [max(width, _width_in(head, count)) for head, width in zip(heads, least, strict=True)]
        if sum(roomy) <= room:
            return roomy
    while sum(widths) > max(room, len(widths)):
        widths[widths.index(max(widths))] -= 1
    return widths


def _width_in(head: str, count: int) -> int:
    """Returns the least width at which the words of a head need at most so many lines."""
    words = [cell_len(word) for word in head.split()]
    for width in range(max(words, default=0), cell_len(head)):
        used, line = 1, -1
        for word in words:
            used, line = (used, line + 1 + word) if line + 1 + word <= width else (used + 1, word)
        if used <= count:
            return width
    return cell_len(head)


def _row(
    cells: Sequence[str], widths: list[int], left: list[bool], console: Console, bottom: bool = False
) -> list[str]:
    """Returns the lines of a row, its cells at the top or at the bottom of them."""
    parts = [
        [line.plain.strip() for line in Text(cell).wrap(console, max(width, 1))] or [""]
        for cell, width in zip(cells, widths, strict=True)
    ]
    height = max(map(len, parts))
    blocks = [[""] * (height - len(part)) + part if bottom else part + [""] * (height - len(part)) for part in parts]
    return [
        (" " * GAP).join(
            line + pad if is_left else pad + line
            for line, width, is_left in zip(row, widths, left, strict=True)
            for pad in [" " * (width - cell_len(line))]
        ).rstrip()
        for row in zip(*blocks, strict=True)
    ]  # fmt: skip
