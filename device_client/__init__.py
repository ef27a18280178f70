"""The device: accepts an image only when the ledger proves it."""
