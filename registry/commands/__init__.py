"""The commands, one module per noun; each takes ``--json`` and prints one document then."""
