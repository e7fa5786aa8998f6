"""Tables and texts for people in a terminal: one file per document.

Not here: which stream they go to (srdd.cli.console) and what they say (srdd.analysis).
"""


class HungUpError(Exception):
    """Nobody reads the output any more, as after `| head`. Typer would make an exit code 1 of a BrokenPipeError."""
