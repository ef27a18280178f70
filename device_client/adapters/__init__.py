"""Drivers of the device ports; they share nothing with each other."""
