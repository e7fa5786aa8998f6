"""Start-up of the commands that must not import torch, against importing the libraries they stand on."""

import subprocess
import sys

from timing import median_seconds, verdict


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    base = median_seconds(lambda: run("-c", "import typer, rich, pydantic"))
    print(f"import typer, rich, pydantic  {base:.2f} s")
    for command in (["--help"], ["formats"], ["schema"]):
        seconds = median_seconds(lambda command=command: run("-m", "srdd", *command))
        print(f"srdd {' '.join(command):<24} {seconds:.2f} s, ratio {verdict(seconds / base, 2, at_most=True)}")


if __name__ == "__main__":
    main()
