"""Medium drivers: ways to find an app's container and put certificates there."""
