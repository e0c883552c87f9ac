"""The pipeline as functions: no orchestration, no clients built, nothing done on import."""
