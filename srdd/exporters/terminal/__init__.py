"""Tables and texts for people in a terminal: one file per document, each with `show(out, document, ...)`.

`out` is a rich console; what comes after the document is how much of it to show. A new document's tables are a new file
here, and its command calls `show`.

Not here: which stream they go to (srdd.cli.console) and the numbers (srdd.analysis).
"""


class HungUpError(Exception):
    """Nobody reads the output any more, as after `| head`. Typer would make an exit code 1 of a BrokenPipeError."""
