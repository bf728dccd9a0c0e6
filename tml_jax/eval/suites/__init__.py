"""Public benchmarks in their own file formats: what each takes in, how it is scored, and what was published for it."""
