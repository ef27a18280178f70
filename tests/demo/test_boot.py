"""The story with devices that really boot; and what is said where they cannot."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from demo import boot, command
from protocol.errors import LocalFault, Misuse

REAL = [
    pytest.mark.debian("opensbi", str(boot.OPENSBI)),
    pytest.mark.debian("u-boot-qemu", str(boot.UBOOT)),
    pytest.mark.debian("qemu-system-misc", f"/usr/bin/{boot.MACHINE}"),
]


class TestRealMachines:
    """OpenSBI and U-Boot in QEMU."""

    pytestmark = REAL

    def test_the_story_comes_true(self, tmp_path: Path) -> None:
        out, how = io.StringIO(), boot.boot_named("qemu")
        told, wrong = command.perform(tmp_path, how.firmware(), 2, out, how)
        assert wrong == []
        assert "went back by themselves (did-not-come-up)" in out.getvalue()
        assert "the canaries' consoles stayed silent" in out.getvalue()
        lived = [line for device in told["devices"] for line in device["history"]]
        assert lived.count("1.2.0 rolled-back") == 1 and lived.count("1.2.1 confirmed") == 2
        consoles = [path.read_bytes() for path in tmp_path.glob("devices/*/console.log")]
        assert len(consoles) == 3, "the fleet's, and that of a device from the factory"
        assert sum(b"U-Boot 20" in console for console in consoles) == 2
        assert sum(b"OpenSBI v" in console for console in consoles) == 1

    def test_the_bad_image_is_as_long_as_the_others_and_another_s(self) -> None:
        how = boot.boot_named("qemu")
        firmware = how.firmware()
        bad = how.defective(firmware, "1.2.0")
        assert len(bad) == len(boot.image(firmware, "1.2.0"))
        assert bad[:1000] == boot.FOREIGN.read_bytes()[:1000] != firmware[:1000]


def test_what_is_missing_is_named_with_the_packages_that_bring_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(boot, "MACHINE", "qemu-system-nowhere")
    monkeypatch.setattr(boot, "UBOOT", tmp_path / "no-u-boot")
    monkeypatch.setattr(boot, "FOREIGN", tmp_path / "no-u-boot")
    monkeypatch.setattr(boot, "OPENSBI", tmp_path)
    kept = tmp_path / "kept"
    with pytest.raises(LocalFault) as refused:
        command.demo(boot="qemu", keep=kept)
    assert refused.value.reason == "no-qemu"
    assert "qemu-system-nowhere" in refused.value.why and "no-u-boot" in refused.value.why
    assert "apt-get install qemu-system-misc u-boot-qemu)" in refused.value.fix
    assert not kept.exists(), "nothing was begun"


def test_another_way_to_boot_is_wrong_usage() -> None:
    with pytest.raises(Misuse) as refused:
        command.demo(boot="lilo")
    assert refused.value.reason == "no-such-boot" and "--boot qemu" in refused.value.fix
    assert boot.boot_named("virtual") is boot.SIMULATED
