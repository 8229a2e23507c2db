"""Child processes that end with us, and the ending of processes that are certainly ours."""

import os
import sys
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]

#: Runs the command that follows, after asking Linux to end it when its parent ends (PR_SET_PDEATHSIG = 1, SIGTERM).
#: A program of its own rather than `preexec_fn`, which may deadlock in a process with threads.
_TIE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent has ended")
os.execv(sys.argv[2], sys.argv[2:])
"""


def tied(command: Sequence[str]) -> list[str]:
    """The command, so wrapped that it gets SIGTERM when the thread that starts it ends, however that happens.

    `command[0]` is a path. Only Linux can do so; elsewhere the command comes back as it is.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]


def find_process(argument: str) -> psutil.Process | None:
    """This user's process that has exactly this argument on its command line, if there is one."""
    for process in psutil.process_iter():
        try:
            if argument in process.cmdline() and process.uids().real == os.getuid():
                return process
        except psutil.Error:
            continue
    return None


def end_process(process: psutil.Process, patience: float) -> None:
    """SIGTERM, and SIGKILL after `patience` seconds; returns when it is gone. A process gone already is no error.

    psutil compares the start time before it signals, so a stranger that got the same number is never hit.
    """
    try:
        process.terminate()
        process.wait(patience)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
    except psutil.NoSuchProcess:
        return
