"""What all commands share: an exit code, and one sentence on standard error for what a user can mend."""

import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["guarded", "user_path"]


def guarded(work: Callable[[], int], *, debug: bool = False) -> int:
    """The exit code of a command: its own, 1 where the input or the machine is at fault, 130 for Ctrl-C.

    Args:
        work: what the command does.
        debug: raise the error, with its traceback, instead of telling it.
    """
    try:
        return work()
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def user_path(argument: str) -> Path:
    """A path of the command line; shells leave the `~` of `--output=~/runs` to us."""
    return Path(argument).expanduser()
