"""HTML that is escaped because of how it is built: text becomes markup only through `element`."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TypeAlias

_VOID = frozenset({"br", "hr", "link", "meta", "circle", "line", "polyline"})


class Markup(str):
    """Text that is HTML already; made by this module only."""

    __slots__ = ()


Child: TypeAlias = "Markup | str | int | float | Iterable[Child] | None"


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element; text and attribute values are escaped.

    Children may be nested lists; None is nothing. An attribute's `_` reads as `-`, one at
    the end (`class_`) falls away; True is an attribute without a value, None and False none.
    """
    opening = "".join(map(_attribute, attributes.items()))
    if tag in _VOID and not children:
        return Markup(f"<{tag}{opening}/>" if tag != "meta" else f"<{tag}{opening}>")
    return Markup(f"<{tag}{opening}>{render(children)}</{tag}>")


def render(child: Child) -> Markup:
    """Return a child, or a nest of them, as HTML."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, str | int | float):
        return Markup(html.escape(str(child)))
    return Markup("".join(map(render, child)))


def document(head: Child, body: Child) -> str:
    """Return a whole page."""
    return f"<!doctype html>\n{element('html', element('head', head), body, lang='en')}\n"


def _attribute(item: tuple[str, str | int | float | bool | None]) -> str:
    name, value = item[0].rstrip("_").replace("_", "-"), item[1]
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(str(value))}"'
