"""Evaluation: suites, metrics, pictures."""
