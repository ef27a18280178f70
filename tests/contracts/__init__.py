"""The contract: on py-evm beside its Python model, and what the build promises."""
