"""Threads of OpenMP sleep while they wait, if torch is not loaded yet. It reads this once, when it is loaded.

Threads that spin steal time from whatever runs beside them. With two cores and thousands of small operators,
which is what a check in float64 is, they make torch up to eight times slower.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
