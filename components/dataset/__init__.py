"""From files to a validated, patient-split data set: intake, inspect, match, curate, split, validate, prepare."""
