"""The command `firstlight`: `python -m firstlight` is the same."""

import sys

from firstlight.errors import FirstlightError


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit with its code; a user's mistake is one line on stderr, a traceback only with --debug."""
    from firstlight.cli import run_command

    words = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in words
    try:
        run_command([word for word in words if word != "--debug"])
    except FirstlightError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        if debug:
            raise
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(1)


if __name__ == "__main__":
    main()
