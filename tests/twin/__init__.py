"""A second verifier, written from the pages alone, and what it says beside the first."""
