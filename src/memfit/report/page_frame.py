"""The frame of a self-contained page: one file, no script, nothing fetched; light and dark follow the reader's system.

Decides the head, the shared style and the policy that forbids a browser to load anything; what stands in it is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from importlib import resources


def page(command: str, target: str, parts: Iterable[str], style: str, footer: str) -> str:
    """A whole page as HTML text.

    Args:
        command: the memfit command that wrote it; ``target``: of what (escaped here).
        parts: HTML of the body, in order; ``style``: rules on top of the shared ones; ``footer``: HTML after "Written by ...".
    """
    rules = resources.files("memfit.report").joinpath("assets/page.css").read_text(encoding="utf-8") + style
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(f'memfit {command}: {target}')}</title><style>{rules}</style></head><body><main>"
        f"{''.join(parts)}<footer>Written by memfit {command}. {footer}</footer></main></body></html>\n"
    )


def header(headline: str, facts: str) -> str:
    """The head of a page: ``headline`` (text, escaped here) over ``facts`` (HTML)."""
    return f"<header><div><h1>{escape(headline)}</h1><p class='soft path'>{facts}</p></div></header>"


def section(title: str, body: str) -> str:
    """``body`` (HTML) under a heading (text, escaped here)."""
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def noted(notes: Iterable[str]) -> str:
    """Each note (text, escaped here) as a paragraph."""
    return "".join(f"<p class='soft'>note: {escape(note)}</p>" for note in notes)
