"""Browser and Node apps, which prove nothing: whom to let speak at all, what they claim, and an older way to write."""
