"""The images that an app holds in Fresco's caches, and how it came by them."""

from rsocket_broker.plugins.images.handler import Images

plugin = Images

__all__ = ["Images", "plugin"]
