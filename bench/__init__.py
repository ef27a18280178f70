"""Every number the README states, reproducible by ``make bench``."""
