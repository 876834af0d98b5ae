"""What setup.cfg cannot say: the functions that are compiled where that is possible, and done without elsewhere."""

import sys

from setuptools import Extension, setup

STARTS = Extension("rsocket_broker.protocol._starts", ["rsocket_broker/protocol/_starts.c"], optional=True)

setup(ext_modules=[STARTS] if sys.implementation.name == "cpython" else [])
