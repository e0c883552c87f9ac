"""Clinician corrections, and how several readers become one truth."""
