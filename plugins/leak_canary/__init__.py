"""Memory leaks that LeakCanary finds in an app, versions 1 and 2."""

from rsocket_broker.plugins.leak_canary.handler import LeakCanary

plugin = LeakCanary

__all__ = ["LeakCanary", "plugin"]
