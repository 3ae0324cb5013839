"""What a migration would do: rounds, bytes and time by road, verdict.

:func:`make_plan` puts together what each module knows alone: the guest (:mod:`~kvmenc.plan.curve`),
the price of a page (:mod:`~kvmenc.plan.roads`), QEMU's constants (:mod:`~kvmenc.plan.profile`), RAM
under the sending cursor (:mod:`~kvmenc.plan.sweep`) and QEMU's decisions
(:mod:`~kvmenc.plan.precopy`). What asks for many migrations of one guest
(:mod:`~kvmenc.plan.advice`, :mod:`~kvmenc.plan.grid`, :mod:`~kvmenc.plan.interval`) goes through
:class:`~kvmenc.plan.whatif.WhatIf`.
"""

from kvmenc.plan.advice import advise
from kvmenc.plan.build import make_plan, plan_many
from kvmenc.plan.grid import make_grid
from kvmenc.plan.interval import interval_of
from kvmenc.plan.parameters import CSV_BATCH_PAGES, Parameters, Xbzrle
from kvmenc.plan.profile import (
    PROFILES,
    QEMU_10_0,
    Profile,
    own_profile,
    profile_for,
    profile_named,
)
from kvmenc.plan.result import Plan

__all__ = [
    "CSV_BATCH_PAGES",
    "PROFILES",
    "QEMU_10_0",
    "Parameters",
    "Plan",
    "Profile",
    "Xbzrle",
    "advise",
    "interval_of",
    "make_grid",
    "make_plan",
    "own_profile",
    "plan_many",
    "profile_for",
    "profile_named",
]
