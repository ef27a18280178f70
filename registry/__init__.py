"""The registry service, in the order a release passes through it."""
