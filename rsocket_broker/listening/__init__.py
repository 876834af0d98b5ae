"""The ports of a broker: what is served on each, who came through it, and its switch."""
