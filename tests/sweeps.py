"""The smallest robustness sweep, for tests that evaluate and look at something else."""

from __future__ import annotations

from components.params import Robustness

QUICK = Robustness(
    images=4,
    noise=(0.05,),
    blur=(3.0,),
    gamma=(1.5,),
    gain=(1.5,),
    jpeg=(30.0,),
    rotation=(10.0,),
    resolution=(0.5,),
)
