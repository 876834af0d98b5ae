"""The program: `rsocket-broker`, or `python -m rsocket_broker`."""

import sys


def main() -> None:
    """Runs the command line. To load it takes a moment, in which Ctrl-C may come as at any other."""
    try:
        from rsocket_broker.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit("Error: stopped.")
    run()


if __name__ == "__main__":
    main()
