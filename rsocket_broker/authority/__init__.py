"""The certificate authority: keys, certificates, and the inventory of what was issued."""
