"""From the words of a command line to an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from fewlabels.cli.commands import build
from fewlabels.cli.job import Job
from fewlabels.core import processes
from fewlabels.core.errors import DiskError, FewlabelsError, OutOfMemoryError, UsageError

INTERRUPTED = 130
PIPE_CLOSED = 141  # what a shell shows for a program that SIGPIPE ended
# typer carries click under another name in each version; its own names stay.
_BadUsage: type[Exception] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after ``fewlabels``; those of the process by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Threads of libgomp that wait by spinning lose their core to any other busy program, and with
    # it several times the speed; after a short spin they sleep. Read when torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        with _terminable():
            return _run(words)
    except SystemExit:
        raise
    except BaseException as error:
        if "--debug" in words:
            traceback.print_exc()
        return _fail(error)


class _Terminated(BaseException):
    """SIGTERM came while nothing was training; whatever stands in the folder is whole."""

    exit_code = 143


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """End in order on SIGTERM; the training loop, which saves first, has a handler of its own."""

    def end(_signum: int, _frame: object) -> None:
        raise _Terminated("interrupted by SIGTERM; the same command goes on from what is done")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    command = typer.main.get_command(build())
    parsed = command.main(words or ["--help"], prog_name="fewlabels", standalone_mode=False)
    if not isinstance(parsed, Job):
        return parsed if isinstance(parsed, int) else 0
    if not parsed.shared:
        processes.refuse_several()
    # Libraries may print; stdout carries the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        result = parsed.call()
    if not processes.prints():
        return 0
    for stream in (sys.stdout, sys.stderr):
        # Names that are not UTF-8 must not end a command that has done its work.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if parsed.as_json:
        from fewlabels.results.files import to_json

        sys.stdout.write(to_json(result) + "\n")
    else:
        parsed.show(result)
    sys.stdout.flush()
    return 0


def _fail(error: BaseException) -> int:
    """Say what went wrong on stderr and return the exit code."""
    if isinstance(error, BrokenPipeError):
        # Python flushes stdout once more at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        what = "interrupted: all that was finished is saved; the same command goes on from there"
        _say(what, error)
        return INTERRUPTED
    if not isinstance(error, Exception):  # _Terminated, or training's own Interrupted
        _say(str(error), error)
        return int(getattr(error, "exit_code", 1))
    told = _translated(error)
    _say(_described(told), told)
    return told.exit_code if isinstance(told, FewlabelsError) else 1


def _translated(error: Exception) -> Exception:
    """Return the error of ours that a library's error stands for, where there is one."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        if isinstance(error, FewlabelsError):
            return error
        hint = "a smaller --image-size or --backbone, or --device cpu"
        return OutOfMemoryError("memory.full", f"out of memory: {error}".rstrip(": "), hint)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space or choose another --out, then run the same command again"
        return DiskError("disk.full", str(error), hint)
    if isinstance(error, _BadUsage):
        return _usage(error)
    return error


def _usage(error: Any) -> UsageError:
    return UsageError("usage.arguments", error.format_message(), _help_command(error))


def _help_command(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'fewlabels'} --help"


def _described(error: Exception) -> str:
    if isinstance(error, FewlabelsError):
        return str(error)
    return (
        f"error[defect]: {type(error).__name__}: {error}\n"
        "  this is a defect of ours and not of your data or command; nothing finished is lost\n"
        "  try: the same command with --debug, and report what it prints together with the\n"
        "       output of 'fewlabels --version' as an issue of the project"
    )


def _say(text: str, error: BaseException) -> None:
    """Write on stderr what went wrong, in one of the processes that share the work."""
    if not processes.speaks(error):
        return
    if not processes.prints():
        text = f"process {processes.launched()[0]}: {text}"
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    encoding = sys.stderr.encoding or "utf-8"
    sys.stderr.write(safe.encode(encoding, "backslashreplace").decode(encoding) + "\n")
