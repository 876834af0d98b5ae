"""The echo plugin."""
