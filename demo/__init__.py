"""The whole story in one command: the only room that sees registry and device together."""
