"""The table as a picture: what docs/device.md shows is made from `core.machine.TABLE`.

A test compares the two. Nothing on a device uses it.
"""

from __future__ import annotations

from device_client.core.machine import TABLE, Stage


def diagram() -> str:
    """The table as a Mermaid state diagram, an edge for each pair of stages with its events."""
    lines = ["stateDiagram-v2", "    [*] --> idle"]
    edges: dict[tuple[Stage, Stage], list[str]] = {}
    for (stage, event), row in TABLE.items():
        edges.setdefault((stage, row.stage), []).append(str(event))
    lines += [
        f"    {source} --> {target}: {', '.join(events)}"
        for (source, target), events in edges.items()
    ]
    return "\n".join(lines) + "\n"
