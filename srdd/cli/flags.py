"""What a shell calls the settings of the library.

Not here: the options themselves (each command's file). Most settings are called alike: batch_size is --batch-size.
Those that are not stand in `OTHERWISE`.
"""

from __future__ import annotations

# setting of the library -> how a shell says it
OTHERWISE: dict[str, str] = {
    "thresholds": "--threshold",
}


def as_option(name: str, value: str | None) -> str:
    """A setting as a shell user types it: ("batch_size", "4") -> "--batch-size 4"; None: the option's name alone."""
    option = OTHERWISE.get(name, "--" + name.replace("_", "-"))
    return option if value is None else f"{option} {value}"
