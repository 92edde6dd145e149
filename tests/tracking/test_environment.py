"""What a run says of the machine it was made on."""

from pathlib import Path

import pytest

from firstlight.tracking.environment import network_filesystem


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("home/ann/runs", "nfs4"),
        ("home/ann/local disk/runs", None),
        ("scratch/runs", "lustre"),
        ("homes", None),
        ("over/runs", None),
    ],
)
def test_network_file_systems_are_known_by_the_longest_mount(tmp_path: Path, place: str, kind: str | None) -> None:
    """Fault 48: rows of a study there have one writer. Of two mounts on one folder the later one counts."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        f"/dev/sda1 / ext4 rw 0 0\nserver:/home {tmp_path}/home nfs4 rw 0 0\n"
        f"/dev/sdb1 {tmp_path}/home/ann/local\\040disk xfs rw 0 0\n10.0.0.1@tcp:/s {tmp_path}/scratch lustre rw 0 0\n"
        f"server:/a {tmp_path}/over nfs rw 0 0\n/dev/sdc1 {tmp_path}/over ext4 rw 0 0\n"
    )
    assert network_filesystem(tmp_path / place, mounts) == kind


def test_a_system_without_a_list_of_mounts_names_no_network_file_system(tmp_path: Path) -> None:
    assert network_filesystem(tmp_path, tmp_path / "none") is None
