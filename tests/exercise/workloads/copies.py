"""rsync and tar: a tree with everything that a tree can have, into the mount and out of it. The second run of rsync finds
nothing to do; tar finds no difference; what comes out is what went in."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from exercise.trees import differences
from exercise.workloads.home import Home, run

RSYNC = ("rsync", "-aHAX", "--checksum", "--numeric-ids")


def build(top: Path) -> None:
    for number in range(40):
        folder = top / f"folder {number % 7}" / f"inner {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"file {number}"
        file.write_bytes(os.urandom(number * 997))
        os.setxattr(file, "user.number", b"%d" % number)
        os.utime(file, ns=(10**18 + number, 10**18 + 123456789 + number))
        os.chmod(file, (0o644, 0o600, 0o4755, 0o2711)[number % 4])
    for number in range(12):
        os.link(top / "folder 1/inner 1/file 1", top / f"folder {number % 7}" / f"hard link {number}")
    os.symlink("folder 1/inner 1/file 1", top / "symbolic link")
    os.symlink("x" * 300, top / "dangling")
    os.mkfifo(top / "fifo", 0o640)
    os.mknod(top / "device", 0o20666, os.makedev(1, 3))
    (top / "Ümläut \N{SNOWMAN}\n\\ \t'quote").write_text("odd name")
    (top / ("n" * 255)).write_text("long name")
    with open(top / "sparse", "wb") as file:
        file.truncate(5 << 20)
        file.seek(3 << 20)
        file.write(b"island")
    for user in ("1000", "65534"):
        run("setfacl", "-m", f"u:{user}:rw,g:{user}:r", top / "folder 2/inner 2/file 2")
        run("setfacl", "-m", f"d:u:{user}:rwx", top / "folder 3")
    os.chmod(top / "folder 4", 0o3777)
    os.chown(top / "folder 2/inner 2/file 2", 1000, 100)
    os.chown(top / "symbolic link", 1234, 5678, follow_symlinks=False)
    os.setxattr(top / "folder 5", "trusted.mark", b"\0\1binary")


def lists(top: Path) -> list[str]:
    """All access control lists; directories list their names in orders of their own."""
    return sorted(run("getfacl", "-R", "-n", ".", cwd=top).split("\n\n"))


def require_equal(one: Path, other: Path) -> None:
    found = list(differences(os.fsencode(one), os.fsencode(other), 2e9))
    assert not found, "\n".join(found[:20])
    assert lists(one) == lists(other)
    assert os.getxattr(one / "folder 5", "trusted.mark") == os.getxattr(other / "folder 5", "trusted.mark")


def live(home: Home) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, back = Path(folder) / "source", Path(folder) / "back"
        source.mkdir()
        build(source)
        target = home.place / "synced"
        run(*RSYNC, f"{source}/", f"{target}/")
        require_nothing_to_do(source, target)
        require_equal(source, target)
        if home.lasts:
            home.leave()
            home.enter()
            require_nothing_to_do(source, target)
            require_equal(source, target)
        shutil.rmtree(source / "folder 6")
        os.rename(source / "folder 3", source / "folder thirty")
        (source / "folder 1/inner 1/file 1").write_bytes(b"changed, under all its names")
        run("setfacl", "-b", source / "folder 2/inner 2/file 2")
        os.removexattr(source / "folder 2/inner 2/file 2", "user.number")
        run(*RSYNC, "--delete", "--inplace", f"{source}/", f"{target}/")
        require_nothing_to_do(source, target)
        require_equal(source, target)
        run(*RSYNC, f"{target}/", f"{back}/")
        require_equal(source, back)
        untarred = home.place / "untarred"
        untarred.mkdir()
        tar(source, untarred)
        require_equal(source, untarred)
        again = Path(folder) / "again"
        again.mkdir()
        tar(untarred, again)
        require_equal(source, again)
    home.notes.append("rsync twice, with --delete, and back; tar in and out; nothing to do, no difference")


def require_nothing_to_do(source: Path, target: Path) -> None:
    told = run(*RSYNC, "--delete", "--itemize-changes", f"{source}/", f"{target}/")
    assert told == "", f"rsync still finds: {told[:2000]}"


def tar(source: Path, target: Path) -> None:
    every = ["--acls", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
    write = subprocess.Popen(["tar", "-c", *every, "-S", "."], cwd=source, stdout=subprocess.PIPE)
    subprocess.run(["tar", "-xp", *every], cwd=target, stdin=write.stdout, check=True)
    assert write.stdout is not None
    write.stdout.close()
    assert write.wait() == 0
    write = subprocess.Popen(["tar", "-c", *every, "."], cwd=source, stdout=subprocess.PIPE)
    found = subprocess.run(["tar", "-d", *every], cwd=target, stdin=write.stdout, capture_output=True, check=False)
    write.stdout.close()
    write.wait()
    assert (found.returncode, found.stdout) == (0, b""), found.stdout + found.stderr
