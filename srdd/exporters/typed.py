"""What may be typed into a shell: names that are names, and placeholders for others.

Names come from strangers' checkpoints, and a command is copied. Not here: the commands (next_steps.py).

Worked number: the model "a; rm -rf ~" is typed as MODEL, a folder called llama as path/to/llama.
"""

from __future__ import annotations

import re

from srdd.core.packaged_models import SHORT_NAMES
from srdd.documents.parts import Model


def typed_model(model: Model) -> str:
    """What to type for --model. A report knows a local folder by its name alone, not where it lies."""
    name = typed(model.id)
    known = name == "MODEL" or "/" in name or model.revision or name in SHORT_NAMES
    return name if known else f"path/to/{name}"


def typed(text: str, placeholder: str = "MODEL") -> str:
    """Text that may be typed; what a stranger wrote otherwise becomes a placeholder."""
    return text if re.fullmatch(r"[A-Za-z0-9_./][\w./:-]{0,200}", text, re.ASCII) else placeholder
