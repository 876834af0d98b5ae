"""What an app shows, as a tree: by the old layout inspector (`Inspector`) or the new one (`ui-debugger`).

An app has one of them, or both; `generation` says which one to ask.
"""

from rsocket_broker.plugins.layout.facade import GENERATIONS, Layout, generation
from rsocket_broker.plugins.layout.inspector import Inspector
from rsocket_broker.plugins.layout.ui_debugger import UiDebugger

__all__ = ["GENERATIONS", "Inspector", "Layout", "UiDebugger", "generation"]
