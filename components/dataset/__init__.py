"""From files to a validated, patient-split data set: intake, inspect, curate, split, validate, prepare."""
