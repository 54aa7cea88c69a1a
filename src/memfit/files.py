"""The one way memfit writes a file for its user: whole or not at all.

The text goes to a temporary file beside the target and is renamed over it, so that a reader, an interruption or a full
disk never meets half a file. What cannot be written is an ``OutputError`` that names the path.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from memfit.errors import OutputError


def check_writable(path: str | Path) -> None:
    """Refuse early, before minutes of work, what ``write_atomically`` would refuse late.

    Raises:
        OutputError: the folder of ``path`` does not exist or cannot be written, or ``path`` is a folder.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise OutputError(str(path), "it is a folder")
    if not os.path.isdir(path.parent):
        raise OutputError(str(path), f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(str(path), f"no permission to write in {path.parent}")


def write_atomically(path: str | Path, content: str | bytes) -> int:
    """Write ``content`` (text as UTF-8) to ``path``, whole or not at all; returns the bytes written.

    Raises:
        OutputError: the file cannot be written; what stood at ``path`` before still stands there.
    """
    path = Path(path)
    check_writable(path)
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".part")
    except OSError as error:
        raise OutputError(str(path), error.strerror or str(error)) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), _mode(path))
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError):
            raise OutputError(str(path), error.strerror or str(error)) from error
        raise
    return len(data)


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, else those that a new file gets here."""
    if os.path.exists(path):
        return path.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
