"""A new interpreter, and which heavy packages it has loaded in the end."""

import subprocess
import sys

HEAVY = ("torch", "transformers", "numpy", "scipy")


def loaded_by(code: str) -> list[str]:
    """The heavy packages that are in sys.modules after running `code` in a new interpreter."""
    probe = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()
