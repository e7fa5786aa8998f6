"""`srdd schema`: the JSON Schema of reports."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of the report on stdout.

    Example: srdd schema > srdd-report.schema.json
    """
    from srdd.cli import console
    from srdd.documents.report import json_schema

    console.machine(json.dumps(json_schema(), indent=2, sort_keys=True))
