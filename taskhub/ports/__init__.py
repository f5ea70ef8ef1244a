"""What the program needs from the outside world, as promises with more than one implementation."""
