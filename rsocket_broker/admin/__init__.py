"""The line between the command line and a running broker."""
