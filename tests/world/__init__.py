"""Simulators of the world: each implements a real port."""
