"""Context parallelism: one sequence spread over ranks."""
