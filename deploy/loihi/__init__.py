"""Real Lava, behind a subprocess: install it, ask what is there, run Programs on it."""
