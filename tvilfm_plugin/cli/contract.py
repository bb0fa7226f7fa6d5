"""The error contract of every command: one line that names fact, choices and remedy; the traceback only with --debug.

Exit status 2: what the user can mend. 1: a check failed, or a fault of the program. 130: Ctrl-C.
"""

import difflib
import dis
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType

from tvilfm_plugin.cli.command import DEBUG
from tvilfm_plugin.files.shipped import PACKAGE
from tvilfm_plugin.files.writing import no_room

FAILED, MEND, INTERRUPTED = 1, 2, 130
# What our code raises with a sentence for the user.
MENDABLE = (ValueError, LookupError, OSError, ImportError)
# What libraries raise, too: a sentence only where it is our own `raise`.
SAID = (RuntimeError, ArithmeticError, TypeError)
GO_ON = "Start the same command again."


def run(work: Callable[[], int | None], *, prog: str, debug: bool = False, goes_on: str = "") -> int:
    """Do the work of a command under the contract; gives its exit status (None counts as 0). `debug` lets errors through."""
    try:
        status = work()
        sys.stdout.flush()
        return int(status or 0)
    except KeyboardInterrupt:
        print(f"\n{prog}: stopped. {goes_on or GO_ON}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # `| head` has seen enough; the interpreter would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
            return status_of(error)
        print(f"{prog}: error: {sentence(error)}", file=sys.stderr)
        return status_of(error)


def run_script(work: Callable[[], int | None], *, prog: str, debug: bool = False, goes_on: str = "") -> int:
    """As `run`, for a user's script: what our code says of its input is one line, its own errors are Python's."""

    def script() -> int | None:
        try:
            return work()
        except Exception as error:
            if debug or said_by_us(error):
                raise
            trace = _behind_us(error.__traceback__)
            sys.excepthook(type(error), error.with_traceback(trace), trace)
            return FAILED

    return run(script, prog=prog, debug=debug, goes_on=goes_on)


def said_by_us(error: BaseException) -> bool:
    """Whether an error was raised in this package, here or in a process that was started for the command."""
    if _child_error(error)[0]:
        files = re.findall(r'^\s*File "(.+?)", line \d+', str(error), flags=re.MULTILINE)
        return bool(files) and _ours(files[-1])
    raised = traceback.extract_tb(error.__traceback__)
    return bool(raised) and _ours(raised[-1].filename) or bool(full_disk(error))


def _behind_us(trace: TracebackType | None) -> TracebackType | None:
    """A traceback without our own frames at its beginning: it starts in the script, as Python's does."""
    while trace is not None and (_ours(trace.tb_frame.f_code.co_filename) or "runpy" in trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace


def _ours(file: str) -> bool:
    return os.path.abspath(file).startswith(str(PACKAGE) + os.sep)


def status_of(error: BaseException) -> int:
    """2 if it is for the user to mend, else 1."""
    kind = _child_error(error)[0]
    if kind:
        return MEND if kind in {one.__name__ for one in _kinds(MENDABLE)} else FAILED
    return MEND if _mendable(error) or full_disk(error) else FAILED


def _mendable(error: BaseException) -> bool:
    """Whether it was raised for the user; a bare key or number of a failed look-up was not."""
    if isinstance(error, LookupError):
        return " " in _text(error)
    return isinstance(error, MENDABLE) or isinstance(error, SAID) and _raised_here(error)


def _raised_here(error: BaseException) -> bool:
    """Whether a `raise` of ours made an error, and not what we called."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or not _ours(trace.tb_frame.f_code.co_filename):
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    if place := full_disk(error):
        return f"The disk is full{place}. Free some space, then start the same command again: what was finished is kept."
    kind, text = _child_error(error)
    if kind:
        return text or kind
    text = _text(error)
    if _mendable(error):
        return text or f"{type(error).__name__} without a word; {DEBUG} shows where."
    return f"{type(error).__name__}: {text} (unexpected: a fault of the program or of a library; {DEBUG} shows where)"


def _text(error: BaseException) -> str:
    # str() of a KeyError is the repr of its message; an OSError's has its number in front.
    text = str(error.args[0]) if isinstance(error, LookupError) and error.args else str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        said = _REMEDIES.get(error.errno or 0)
        text = f"{error.filename or '(an empty name)'}: {said(os.fspath(error.filename)) if said else error.strerror}"
    return " ".join(text.split())


def _absent(place: str) -> str:
    folder, name = os.path.split(os.fsdecode(place))
    folder = folder or os.curdir
    if not os.path.isdir(folder):
        return f"there is no folder {folder} (seen from {os.getcwd()}). Check its name."
    near = difflib.get_close_matches(name, os.listdir(folder), n=1)
    hint = f"Did you mean {os.path.join(folder, near[0])}?" if near else "Check its name."
    return f"there is no such file or folder (seen from {os.getcwd()}). {hint}"


# What the system says of a file has no remedy.
_REMEDIES: dict[int, Callable[[str], str]] = {
    errno.ENOENT: _absent,
    errno.EISDIR: lambda place: "it is a folder; name a file in it.",
    errno.ENOTDIR: lambda place: "it, or what it should lie in, is a file and no folder; name a folder.",
    errno.EACCES: lambda place: "this user may not read or write it; change its rights, or name another.",
    errno.EPERM: lambda place: "this user may not read or write it; change its rights, or name another.",
    errno.EROFS: lambda place: "it lies on a disk that is read-only; name another place.",
    errno.EEXIST: lambda place: "there is something of this name already; remove it, or name another place.",
    errno.ENAMETOOLONG: lambda place: "the name is too long for this disk; name another.",
    errno.ELOOP: lambda place: "its links lead in a circle; name the file that is meant.",
}


def full_disk(error: BaseException | None) -> str:
    """" on ..." if this error, or the one behind it, is a full disk, else ""."""
    full = no_room(error)
    if full is None:
        return ""
    return f" ({full.filename}: {full.strerror})" if full.filename else f" ({full.strerror})"


def _child_error(error: BaseException) -> tuple[str, str]:
    """(kind, text) of the error of a process that was started for the command, from the last line of its traceback."""
    if type(error).__name__ not in ("ProcessRaisedException", "RemoteTraceback"):
        return "", ""
    lines = [line for line in str(error).splitlines() if re.match(r"[A-Za-z_.]*(Error|Exception|Mismatch)\b", line)]
    kind, _, text = lines[-1].partition(": ") if lines else ("", "", "")
    return kind.rpartition(".")[2], text.strip("\"'")


def _kinds(kinds: tuple[type, ...]) -> Iterator[type]:
    for kind in kinds:
        yield kind
        yield from _kinds(tuple(kind.__subclasses__()))
