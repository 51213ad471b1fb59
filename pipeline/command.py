"""What all commands share: an exit code, and one sentence on standard error for what a user can mend."""

import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["guarded", "keep_compiled", "use_cores", "user_path"]


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


def keep_compiled() -> None:
    """Let JAX keep what it compiles in the user's cache folder: the next run of the same analysis starts at once."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        from pipeline.memory import user_cache

        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "compiled"))  # type: ignore[no-untyped-call]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # type: ignore[no-untyped-call]


def use_cores(number: int | None = None) -> None:
    """Let JAX divide the work among so many cores, or all that this process may use; before it computes anything.

    Raises:
        ValueError: the number is none, or JAX has begun to compute with another.
    """
    import jax

    from pipeline.ingest.execution import cores

    if number is not None and number < 1:
        raise ValueError(f"--cores {number}: give at least 1")
    if number is None and jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return
    try:
        jax.config.update("jax_num_cpu_devices", number or cores())  # type: ignore[no-untyped-call]
    except RuntimeError:
        if number not in (None, jax.local_device_count("cpu")):
            raise ValueError(f"--cores {number}: JAX computes already, with {jax.local_device_count('cpu')}") from None


def user_path(argument: str) -> Path:
    """A path of the command line; shells leave the `~` of `--output=~/runs` to us."""
    return Path(argument).expanduser()
