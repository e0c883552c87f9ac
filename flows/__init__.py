"""Time, failure and people: Prefect flows around `components`, and the command line that starts them."""
