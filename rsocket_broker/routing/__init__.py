"""From a session's frame to a plugin's handler, and back."""
