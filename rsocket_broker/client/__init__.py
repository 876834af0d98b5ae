"""The Python client SDK: one call gives an enrolled, connected session."""
