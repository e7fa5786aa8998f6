"""The verdict of `srdd check` as a document: JUnit XML, Markdown, and the sentences that they share with the terminal.

A document is a module with `render(verdict) -> str`. There is no registry: each has an option of `srdd check` to itself
(--junit, --summary), so a new one is a new file here and its option in cli/check.py.
"""
