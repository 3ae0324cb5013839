"""Which order of the two syncs is right: all interleavings of guest and host, exhaustively.

``check`` runs kvmenc's own sync code, and other protocols made of the same parts, against guests
that write, flip, announce and convert pages, and judges every ending by what the guest reads at the
destination. See docs/order.md.
"""

from kvmenc.ordering.search import FULL, QUICK, Bounds, OrderCheck, check
from kvmenc.ordering.timeline import Timeline, TimelineStep

__all__ = ["FULL", "QUICK", "Bounds", "OrderCheck", "Timeline", "TimelineStep", "check"]
