"""Class names that scripts use as wrap policies."""
