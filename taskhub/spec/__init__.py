"""Text from outside becomes domain values, or a list of everything wrong with it."""
