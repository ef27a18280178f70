"""Tests of the embedded ledger."""
