"""`python -m rsocket_broker` is the same as `rsocket-broker`."""

from rsocket_broker.cli.main import main

if __name__ == "__main__":
    main()
