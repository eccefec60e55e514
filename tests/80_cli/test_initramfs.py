"""What goes into an initial RAM disk, and its scripts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
SHELL = [
    *(SCRIPTS / "initramfs" / name for name in ("hook", "boot", "install")),
    *sorted((SCRIPTS / "initramfs/dracut").glob("*.sh")),
    *(SCRIPTS / "boot" / name for name in ("initramfs", "vm", "root/boot-proof")),
    SCRIPTS / "test-boot",
]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_the_shell_scripts_are_clean():
    done = subprocess.run(["shellcheck", *SHELL], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="it mounts, to see what that needs")
def test_what_is_collected_runs_without_anything_else(tmp_path):
    tree = tmp_path / "tree"
    done = subprocess.run(
        [sys.executable, SCRIPTS / "initramfs/collect.py", tree], capture_output=True, text=True, check=True
    )
    assert "modules" in done.stdout
    size = sum(file.stat().st_size for file in tree.rglob("*") if file.is_file() and not file.is_symlink())
    assert size < 60 << 20
    assert not list(tree.rglob("dmgfs/packing/*"))
    assert list(tree.rglob("*.py")) == [tree / "usr/lib/dmgfs/run.py"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        """In the tree alone. There is no shell in it, so what the command does is done here."""
        home = "/usr/lib/dmgfs"
        environment = {"PYTHONHOME": home, "LD_LIBRARY_PATH": f"{home}/lib", "LC_ALL": "C.UTF-8"}
        command = [
            shutil.which("chroot") or "chroot",
            tree,
            f"{home}/bin/python3",
            "-s",
            "-S",
            f"{home}/run.py",
            *words,
        ]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    said = run("imageboot", "--show", "--cmdline", "rp=file:///a.dmg")
    assert (said.returncode, said.stderr) == (0, "")
    assert '"path": "/a.dmg"' in said.stdout
    said = run("imageboot", "/", "--cmdline", "dmgfs.image=/a.dmg dmgfs.wait=0")
    assert said.returncode == 66
    assert said.stderr == "dmgfs: /a.dmg: No such file or directory\n"

    # Were a module missing, the collector would say so, whatever the working directory has.
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from collect import Collection; "
        "Collection(Path(sys.argv[1])).prove(['dmgfs.fuse.serve'])"
    )
    words = [sys.executable, "-c", program, tree, SCRIPTS / "initramfs"]
    assert subprocess.run(words, cwd=SCRIPTS.parent, check=False).returncode == 0
    (module,) = tree.rglob("dmgfs/fuse/pool.pyc")
    module.unlink()
    done = subprocess.run(words, cwd=SCRIPTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "No module named 'dmgfs.fuse.pool'" in done.stderr


def test_installing_names_the_python_and_the_collector(tmp_path):
    environment = {**os.environ, "DMGFS_VENV": sys.prefix}
    for kind, files in (
        ("initramfs-tools", {"hooks/dmgfs", "scripts/dmgfs", "dmgfs.conf"}),
        (
            "dracut",
            {"90dmgfs/module-setup.sh", "90dmgfs/parse-dmgfs.sh", "90dmgfs/mount-dmgfs.sh", "90dmgfs/dmgfs.conf"},
        ),
    ):
        folder = tmp_path / kind
        subprocess.run([SCRIPTS / "initramfs/install", kind, folder], env=environment, check=True)
        assert {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()} == files
        (configuration,) = folder.rglob("dmgfs.conf")
        shown = subprocess.check_output(
            [
                "sh",
                "-c",
                '. "$1"; "$PYTHON" -c "import dmgfs" && test -x "$COLLECT" && echo works',
                "sh",
                configuration,
            ],
            text=True,
        )
        assert shown == "works\n"
