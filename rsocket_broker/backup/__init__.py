"""A whole home in one file: taken while a broker runs, verified, and put in place again whole or not at all."""
