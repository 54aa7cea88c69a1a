from types import FrameType
from typing import Any

def variables(frame: FrameType, /) -> dict[str, Any]: ...
