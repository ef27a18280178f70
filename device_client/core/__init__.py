"""Decisions of the device: pure, no I/O."""
