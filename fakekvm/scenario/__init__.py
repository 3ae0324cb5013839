"""Scenarios: files that say what host there is and what its guests do.

.. code-block:: python

    scenario = load("boot-linux")
    with scenario.kernel() as kernel:
        kvm = kernel.open("/dev/kvm")

Whatever is wrong with a file is a ``ScenarioError``.
"""

from fakekvm.scenario.errors import ScenarioError
from fakekvm.scenario.loading import SCHEMA, load, names, parse
from fakekvm.scenario.model import Guest, Phase, Scenario

__all__ = ["SCHEMA", "Guest", "Phase", "Scenario", "ScenarioError", "load", "names", "parse"]
