"""A verdict as JUnit XML: one test case per limit, kind of site and format; CI systems draw tables from it.

Characters that XML 1.0 cannot hold are replaced, because names come from strangers' checkpoints.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from srdd.documents.check import CheckResult
from srdd.exporters.check.text import failure_text, implausible_text, undecided_text, worst_text

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(verdict: CheckResult) -> str:
    """The document, with the XML declaration."""
    failed = sum(not case.passed for case in verdict.cases) + len(verdict.problems)
    count = len(verdict.cases) + len(verdict.problems)
    suite = ElementTree.Element("testsuite", name=_clean(f"srdd check {verdict.new}"), tests=str(count))
    suite.set("failures", str(failed))
    suite.set("errors", "0")
    for case in verdict.cases:
        item = ElementTree.SubElement(
            suite, "testcase", classname=_clean(f"srdd.{case.kind}.{case.shown_format}"), name=_clean(case.limit)
        )
        if case.failures:
            text = failure_text(case)
            failure = ElementTree.SubElement(item, "failure", type="regression", message=_clean(text[0]))
            failure.text = _clean("\n".join(text))
        output = [worst_text(case), *(implausible_text(case, f) for f in case.implausible)]
        output += [undecided_text(case, f) for f in case.undecided]
        ElementTree.SubElement(item, "system-out").text = _clean("\n".join(output))
    for problem in verdict.problems:
        item = ElementTree.SubElement(suite, "testcase", classname="srdd.values", name="finite values")
        ElementTree.SubElement(item, "failure", type="nonfinite", message=_clean(problem)).text = _clean(problem)
    root = ElementTree.Element("testsuites", tests=str(count), failures=str(failed), errors="0")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
