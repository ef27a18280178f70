"""Tests of what both sides mean."""
