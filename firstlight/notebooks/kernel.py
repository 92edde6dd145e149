"""The kernel in which a handed-in notebook runs again: ipykernel, confined. `python -m firstlight.notebooks.kernel FOLDER LOG -f FILE`."""

import sys
from pathlib import Path


def main() -> None:
    """Put the limits on, then serve."""
    from firstlight.notebooks.confine import confine

    folder, log = Path(sys.argv.pop(1)), Path(sys.argv.pop(1))
    if sys.path[0] in ("", str(Path.cwd())):
        del sys.path[0]  # as ipykernel's own launcher does: modules beside the notebook do not stand in for those it needs
    confine(folder, log)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
