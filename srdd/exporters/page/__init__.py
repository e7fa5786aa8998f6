"""The HTML page of a report: its data in columns (data.py and what it calls), its scripts (*.js) and its styles.

Not here: the page as one file (srdd.exporters.report.html). The scripts draw what the data holds and compute nothing.
"""
