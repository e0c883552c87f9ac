"""From prepared arrays to a judged release bundle: train, calibrate, export, evaluate."""
