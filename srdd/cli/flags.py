"""What a shell calls the settings of the library.

Not here: the options themselves (each command's file). Most settings are called alike: batch_size is --batch-size.
Those that are not stand in `OTHERWISE`.
"""

from __future__ import annotations

# setting of the library -> how a shell says it
OTHERWISE: dict[str, str] = {
    "across_quant": "--across quant",
    "costs": "--cost",
    "factors": "--factor",
    "find_sites": "--dry-run",  # a function, which lists the names that a model has
    "form": "--format",
    "formats": "--quant",
    "how": "--attribute",
    "kind": "--site",  # of a site; what an experiment measures is `measured`
    "measured": "--kind",
    "sensitive": "--noise-on",
    "spec": "--quant",
    "targets": "--target",
    "thresholds": "--threshold",
    "tokens_per_sequence": "--rows",
    "warmup_share": "--warmup",
}


def as_option(name: str, value: str | None) -> str:
    """A setting as a shell user types it: ("batch_size", "4") -> "--batch-size 4"; None: the option's name alone."""
    option = OTHERWISE.get(name, "--" + name.replace("_", "-"))
    return option if value is None else f"{option} {value}"
