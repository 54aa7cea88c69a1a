"""`memfit run`: a program under memfit's memory."""

from __future__ import annotations

from memfit.cli.pooled_script import pooled_script as command

__all__ = ["command"]
