"""The command `firstlight`: `python -m firstlight` is the same."""

import os
import signal
import sys
import traceback
from typing import Any

from firstlight.errors import FirstlightError, OutOfMemoryError


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit with its code; a user's mistake is one line on stderr, a traceback only with --debug."""
    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    if os.environ.get("WORLD_SIZE", "1") != "1":
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch prints a stack for each rank that is gone, and we say which
    boxes: list[str] = []
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        from firstlight.cli import run_command
        from firstlight.plotting.fonts import told

        with told(boxes):
            run_command([word for word in words if word != "--debug"])
    except FirstlightError as error:
        if debug:
            traceback.print_exc()
        if os.environ.get("WORLD_SIZE", "1") != "1":
            from firstlight.engine.distributed import said_by_one

            error = said_by_one(error)
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # once more, while a run was being closed
        print("error: interrupted; what was saved is whole", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(1)
    except (MemoryError, RuntimeError, OSError) as error:
        if not _is_out_of_memory(error):
            raise
        if debug:
            traceback.print_exc()
        print("error: out of memory; close other programs, use smaller images, or a machine with more memory", file=sys.stderr)
        sys.exit(OutOfMemoryError.exit_code)
    finally:
        for line in boxes if not sys.stderr.closed else ():
            print(f"note: {line}", file=sys.stderr)
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_out_of_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from firstlight.engine.memory import is_out_of_memory

    return is_out_of_memory(error)


def _leave(number: int, frame: Any) -> None:
    """Leave at once where no training is under way that could save its state first.

    An exception would not do: raised in the midst of an import of torch it comes out as another error, or not at all.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1" and os.environ.get("RANK", "0") != "0":  # of several processes, rank 0 speaks
        os._exit(128 + number)
    shown = b"\x1b[?25h" if sys.stderr.isatty() else b""  # a progress bar hides the cursor
    os.write(2, shown + b"error: interrupted before there was anything to resume; give the command again\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
