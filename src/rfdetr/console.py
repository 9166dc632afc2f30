"""The lines a user sees. Of the processes that torchrun or srun have started, the first one alone speaks."""

import os
import sys


def say(message: str) -> None:
    """One line of progress or result, on standard output at once."""
    if is_heard():
        show(message + "\n")


def show(text: str) -> None:
    """A text, on standard output; whoever reads it may stop before the end, as `head` does, and the work goes on."""
    # Names of files that are not text come as lone surrogates, which no encoding has.
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        # Python flushes the rest at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def warn(message: str) -> None:
    """Something the user should know and that does not stop the run, on standard error."""
    if is_heard():
        print(f"rfdetr: warning: {message}", file=sys.stderr, flush=True)


def is_heard() -> bool:
    if "WORLD_SIZE" in os.environ:
        return os.environ.get("RANK", "0") == "0"
    return "SLURM_STEP_NUM_TASKS" not in os.environ or os.environ.get("SLURM_PROCID", "0") == "0"


def size_words(count: int) -> str:
    """Bytes as `453 MiB`, `5.3 GiB`."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
