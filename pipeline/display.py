"""How objects show themselves in a notebook, and in a report."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

__all__ = ["escape", "html_table", "side_by_side"]


def html_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table; what stands in it is escaped."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def side_by_side(
    names: Iterable[str], folds: Sequence[Mapping[str, float]]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The thresholds that each fold led to, as titles and rows: where they differ, the events do not fix them."""
    titles = ("cut", *(f"fold {number + 1}" for number in range(len(folds))))
    return titles, [(name, *(f"{fold[name]:.4g}" for fold in folds)) for name in names]
