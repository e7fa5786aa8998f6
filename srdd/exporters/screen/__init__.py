"""What the first screen (terminal/screen.py) is put together from: its paper, its short names, its larger sections.

Not here: the facts on it (srdd.analysis.screen, srdd.analysis.choices, srdd.analysis.classic_screen).
"""
