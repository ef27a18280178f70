"""What both sides mean: formats, rules and proofs. Pure: no I/O, no clock, no randomness of its own."""
