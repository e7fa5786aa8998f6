"""`python -m srdd` and the `srdd` command."""

import atexit
import gc
import sys
import traceback
from contextlib import suppress

# What reads reports is over before garbage is worth looking for, a tenth of the time of `srdd zones`. Commands that
# run a model keep them; theirs may hold tensors.
SHORT = ("zones", "multipliers", "advise", "compare", "check", "show", "formats", "schema", "schedule")


def main() -> int:
    """Run the command line as a process of its own."""
    try:
        if sys.argv[1:2] and sys.argv[1] in SHORT:
            gc.disable()
            atexit.register(gc.freeze)  # nor is it when the process ends
        from srdd.cli.app import main as run

        return run()
    except KeyboardInterrupt:  # before a command runs, so that there is nothing to say
        return 130
    except BaseException:  # a broken installation, or a bug in what reports bugs; Python's own exit code would be 1
        with suppress(Exception):
            traceback.print_exc()
            sys.stderr.flush()
        return 70


if __name__ == "__main__":
    sys.exit(main())
