"""The way to a destination: route, devices, speeds, shaping, load, and what TCP gets of it.

Only read, never changed. ``kernel`` asks the kernel, all else works on what it answered.
"""

from kvmenc.link.look import look
from kvmenc.link.model import Device, Limit, Link, NextHop, Route, Shaping

__all__ = ["Device", "Limit", "Link", "NextHop", "Route", "Shaping", "look"]
