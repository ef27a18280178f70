"""Boot backends, on the real tools of their bootloaders."""
