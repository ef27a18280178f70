"""Images run their own self-test, and a defective build fails it."""

import subprocess
import sys
from pathlib import Path

import pytest

from demo.firmware import defective_image, image, read_firmware, standard_firmware
from protocol.errors import Malformed

OPENSBI = Path("/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin")
UBOOT = Path("/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin")


def self_test(path: Path) -> int:
    return subprocess.run([sys.executable, path], capture_output=True, check=False).returncode


def check(firmware: bytes, folder: Path) -> None:
    good, bad = folder / "good", folder / "bad"
    good.write_bytes(image(firmware, "1.0.0"))
    bad.write_bytes(defective_image(firmware, "1.0.0"))
    assert good.read_bytes()[: len(firmware)] == firmware
    assert self_test(good) == 0
    assert self_test(bad) != 0


def test_the_standard_firmware_is_real_and_repeatable(tmp_path: Path) -> None:
    firmware = standard_firmware()
    assert firmware == standard_firmware()
    assert len(firmware) > 3_000_000 and len(set(firmware)) > 100
    check(firmware, tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(OPENSBI, marks=pytest.mark.debian("opensbi", str(OPENSBI))),
        pytest.param(UBOOT, marks=pytest.mark.debian("u-boot-qemu", str(UBOOT))),
    ],
)
def test_firmware_of_debian_becomes_an_image(path: Path, tmp_path: Path) -> None:
    check(read_firmware(path), tmp_path)


def test_an_empty_file_is_no_firmware(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(Malformed):
        read_firmware(tmp_path / "empty")


def test_all_images_of_one_firmware_have_one_size() -> None:
    """Or a slot would keep the end of a longer one, where Python looks for the self-test."""
    firmware = bytes(range(256)) * 1000
    sizes = {len(image(firmware, version)) for version in ("1.0.0", "65535.65535.4294967295")}
    assert sizes == {len(defective_image(firmware, "1.2.0"))}


def test_the_smallest_firmware_can_be_defective(tmp_path: Path) -> None:
    check(b"x", tmp_path)
