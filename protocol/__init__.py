"""What both sides mean: formats, rules, proofs. Pure: no I/O, clock or randomness."""
