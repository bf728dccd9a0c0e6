"""Tables in Markdown."""

from collections.abc import Sequence
from typing import Any


def markdown_table(rows: Sequence[Sequence[Any]], left: int | None = None) -> str:
    """A table.

    Args:
      rows: the head first; cells of any type.
      left: columns that are aligned to the left, the others to the right; None for all.

    Returns:
      The table, ending with a newline.
    """
    head, *body = [[str(part).replace("|", "\\|") for part in row] for row in rows]
    left = len(head) if left is None else left
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
