"""What production looks like beside what the model was made on: drift, audited performance, alerts."""
