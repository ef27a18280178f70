"""Tests of the device decisions."""
