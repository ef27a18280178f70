"""The registry service, in the order a release passes through it."""

VERSION = "0.1.0"
