"""Drawn radiographs of nobody: limbs with and without fractures, as two different sites' detectors would see them.

For the demo and the tests: physics good enough to train, shift and judge a model on, and no one to protect.
"""

from components.radiograph.phantom.archive import Archive, Phantom, draw, write_archive
from components.radiograph.phantom.detector import DETECTOR_A, DETECTOR_B, Detector
from components.radiograph.phantom.fracture import KINDS

__all__ = ["DETECTOR_A", "DETECTOR_B", "KINDS", "Archive", "Detector", "Phantom", "draw", "write_archive"]
