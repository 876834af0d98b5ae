"""Crashes of apps, from whoever tells of them: the app, its SDK, the device's log, the reports of a Mac."""

from rsocket_broker.plugins.crash_reporter.handler import CrashReporter

plugin = CrashReporter

__all__ = ["CrashReporter", "plugin"]
