"""What apps keep in their databases: lists, structure, pages of data, SQL."""

from rsocket_broker.plugins.databases.handler import Databases

plugin = Databases

__all__ = ["Databases", "plugin"]
