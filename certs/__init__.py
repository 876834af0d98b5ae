"""Certificate profiles, as data. No key ever lives here."""
