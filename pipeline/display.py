"""How objects show themselves in a notebook."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["escape", "html_table"]


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table; what stands in it is escaped."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
