"""The demo: two networks of equal size and equal training time, one table, three pictures."""

from .run import run_demo as run_demo
from .source import DemoConfig as DemoConfig

__all__ = ["DemoConfig", "run_demo"]
