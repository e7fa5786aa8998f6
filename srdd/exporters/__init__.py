"""From answers to bytes: one folder per family, one file per output. No arithmetic that belongs to analysis, no disk.

report    a scan report as a page, a picture, Markdown or a table: modules found by their REPORT_SUFFIXES
rin       rin.yaml as a trainer's configuration: modules found by their FORM
check     a verdict as JUnit XML or Markdown: `render(verdict)`, one option of `srdd check` each
terminal  tables for people: `show(out, document, ...)`, one file per document
screen    the parts of the first screen, which terminal/screen.py puts together
page      the data, scripts and styles of the HTML page, which report/html.py puts together

A new output is a new file in its family's folder; the folder's `__init__` states the contract.
"""
