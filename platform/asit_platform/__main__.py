"""`asit` and `python -m asit_platform`."""

import sys


def main() -> int:
    """Run the command line, or say what to install where only `asit_core`'s needs are met."""
    try:
        from asit_platform.cli import main as run
    except ModuleNotFoundError as error:
        remedy = "in the clone: `make setup`, or pip install '.[platform,dashboards]'"
        print(f"error: '{error.name}' is not installed; {remedy}", file=sys.stderr)  # noqa: T201
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
