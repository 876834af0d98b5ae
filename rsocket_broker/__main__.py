"""The program: `rsocket-broker`, or `python -m rsocket_broker`."""

import gc
import sys

LOADING = 250_000
"""Objects that are made before Python looks for cycles among them. While a program is loaded, all that is made stays:
to look through it after every 700, as Python does by itself, takes a sixth of the time until a broker is ready."""


def main() -> None:
    """Runs the command line. To load it takes a moment, in which Ctrl-C may come as at any other."""
    gc.set_threshold(LOADING)
    try:
        from rsocket_broker.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("Error: stopped.")
    run()


if __name__ == "__main__":
    main()
