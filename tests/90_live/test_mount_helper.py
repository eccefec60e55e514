"""mount(8) and umount(8) with dmgfs: the real ones, in a namespace whose /usr/sbin has mount.dmgfs."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.rangeserver import serving
from exercise.daemon import has_ended
from exercise.namespace import Namespace, namespace

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    with namespace(tmp_path_factory.mktemp("namespace")) as inside:
        yield inside


@pytest.fixture
def place(inside: Namespace, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mount point"
    place.mkdir()
    yield place
    while inside.options(place):
        inside.run("umount", "-i", "-l", place)


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


QUIET = (0, "", "")


@pytest.mark.parametrize("words", [[], ["-o", "shadow=ram:1M,noatime"]])
def test_it_answers_when_mount_returns_and_ends_after_umount(inside, image, place, words):
    assert said(inside.run("mount", "-r", "-t", "dmgfs", image, place, *words)) == QUIET
    assert inside.shell('cat "$PLACE/readme"', PLACE=str(place)) == "read me\n"
    process = int(inside.shell('getfattr --only-values -n user.dmgfs.pid "$PLACE"', PLACE=str(place)))
    assert ("noatime" in inside.options(place)) == bool(words)
    assert said(inside.run("umount", place)) == QUIET
    assert has_ended(process)


@pytest.mark.parametrize("kind", ["fuse.dmgfs", "fuse"])
def test_by_way_of_mount_fuse(inside, image, place, kind):
    source = f"dmgfs#{image}" if kind == "fuse" else str(image)
    words = "shadow=ram:1M,nofail,_netdev,x-systemd.automount,allow_other"
    assert said(inside.run("mount", "-t", kind, source, place, "-o", words)) == QUIET
    inside.shell('echo new >"$PLACE/new"; grep -q new "$PLACE/NEW"', PLACE=str(place))
    assert {"rw", "allow_other"} <= inside.options(place)
    assert said(inside.run("umount", place)) == QUIET


def test_writable_without_a_shadow_is_said_to_be_read_only(inside, image, place):
    """mount(8) asks for rw whenever nobody asks for ro."""
    done = inside.run("mount", "-t", "dmgfs", image, place)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith(f"dmgfs: {image}: mounted read-only: no shadow for changes")
    assert "ro" in inside.options(place)


def test_verbose(inside, image, place):
    assert said(inside.run("mount", "-v", "-r", "-t", "dmgfs", image, place)) == (
        0,
        f"{place}: {image} is mounted\n",
        "",
    )


def test_an_image_behind_a_url(inside, image, place, tmp_path):
    with serving(image.read_bytes()) as server:
        url = server.url.replace("://", "://me:secret@") + "?sign=secret"
        words = f"network-cache={tmp_path / 'cache'}:8M,network-timeout=2,_netdev"
        done = inside.run("mount", "-v", "-r", "-t", "dmgfs", url, place, "-o", words)
        assert said(done) == (0, f"{place}: {server.url} is mounted\n", "")
        assert inside.shell('cat "$PLACE/readme"', PLACE=str(place)) == "read me\n"
        assert said(inside.run("umount", place)) == QUIET
        table = fstab(tmp_path, f"{url} {quoted(place)} dmgfs ro,{words}")
        assert said(inside.run("mount", "-T", table, place)) == QUIET
        assert said(inside.run("umount", place)) == QUIET
    done = inside.run("mount", "-r", "-t", "dmgfs", url, place, "-o", words)
    assert (done.returncode, len(done.stderr.splitlines())) == (32, 1)
    assert done.stderr.startswith(f"dmgfs: {server.url}: Connection refused")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["-o", "shadwo=ram"], 1, "-o shadwo=ram: there is no such option; is shadow meant?"),
        (["-o", "shadow=ram:0%"], 1, "the share of the memory is 1% to 100%"),
        (["-o", "cache=many"], 1, "'many' is no size"),
        (["-o", "context=nonsense"], 2, "Invalid argument"),
        (["-o", "partition=none"], 1, "none"),
    ],
)
def test_what_cannot_be_mounted(inside, image, place, arguments, code, line):
    done = inside.run("mount.dmgfs", image, place, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not inside.options(place)


def test_exit_codes_of_images_that_are_none(inside, place, tmp_path):
    (tmp_path / "text").write_text("text")
    (tmp_path / "damaged").write_bytes(bytes(1024) + b"H+" + bytes(4096))
    for name in ("absent", "text", "damaged"):
        done = inside.run("mount", "-t", "dmgfs", tmp_path / name, place)
        assert (done.returncode, len(done.stderr.splitlines())) == (32, 1), name
        assert done.stderr.startswith(f"dmgfs: {tmp_path / name}: ")
    assert said(inside.run("mount", "-t", "dmgfs", "-o", "nofail", tmp_path / "absent", place)) == QUIET
    assert inside.run("mount", "-t", "dmgfs", "-o", "nofail", tmp_path / "text", place).returncode == 32
    done = inside.run("mount.dmgfs", tmp_path / "text")
    assert done.returncode == 1
    assert "MOUNTPOINT" in done.stderr


def test_fake_and_sloppy(inside, image, place):
    assert said(inside.run("mount", "-f", "-t", "dmgfs", image, place, "-o", "shadow=ram")) == QUIET
    assert inside.run("mount.dmgfs", "-f", image, place, "-o", "nosuch").returncode == 1
    assert not inside.options(place)
    assert said(inside.run("mount", "-s", "-n", "-r", "-t", "dmgfs", image, place, "-o", "nosuch=1")) == QUIET
    assert "ro" in inside.options(place)


def test_in_another_namespace(inside, image, place):
    other = subprocess.Popen(
        [
            "nsenter",
            f"--mount=/proc/{inside.process}/ns/mnt",
            "unshare",
            "--mount",
            "sh",
            "-c",
            "echo; exec sleep 60",
        ],
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        there = Namespace(other.pid, inside.folder)
        assert said(inside.run("mount", "-N", str(other.pid), "-r", "-t", "dmgfs", image, place)) == QUIET
        assert there.options(place)
        assert not inside.options(place)
        assert said(inside.run("umount", "-N", str(other.pid), place)) == QUIET
        assert not there.options(place)
        other.kill()
    assert "No such file" in inside.run("mount.dmgfs", "-N", "/proc/self/nothing", image, place).stderr


# -- fstab --------------------------------------------------------------------------------------------------------------


def fstab(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "fstab"
    path.write_text("".join(f"{line} 0 0\n" for line in lines))
    return path


def quoted(path: Path) -> str:
    return str(path).replace(" ", "\\040")


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("shadow=ram:50%,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=60", {"rw", "nosuid", "nodev"}),
        ("defaults,ro,noauto", {"ro"}),
        ("user,noauto,shadow=ram", {"rw", "noexec", "nosuid", "nodev"}),
        ("user,exec,dev,suid,shadow=ram,allow_other", {"rw", "allow_other"}),
        ("users,group,owner,comment=x,X-mount.mkdir,ro,noatime", {"ro", "noatime"}),
    ],
)
def test_lines_of_fstab(inside, image, place, tmp_path, words, options):
    table = fstab(tmp_path, f"{image} {quoted(place)} dmgfs {words}")
    assert said(inside.run("mount", "-T", table, place)) == QUIET
    assert options <= inside.options(place)
    if "exec" in words.split(","):
        assert not {"noexec", "nosuid", "nodev"} & inside.options(place)
    assert said(inside.run("umount", place)) == QUIET


def test_all_of_fstab_and_its_odd_names(inside, image, place, tmp_path):
    """A comma within a value three ways, and a space as fstab writes it."""
    odd = tmp_path / "an image, of sorts.img"
    odd.write_bytes(image.read_bytes())
    places = [place, *(tmp_path / name for name in ("second", "third", "never"))]
    shadows = [tmp_path / name for name in ("a, b", "c,d", "e,f")]
    for folder in places[1:]:
        folder.mkdir()
    values = [str(shadows[0]).replace(" ", "\\040").replace(",", "\\,"), f'"{shadows[1]}"', str(shadows[2])]
    values[2] = values[2].replace(
        ",", "\\\\054"
    )  # the backslash is for dmgfs: mount(8) itself takes \054 for a comma
    table = fstab(
        tmp_path,
        *(
            f"{quoted(odd)} {quoted(there)} dmgfs shadow={value}"
            for there, value in zip(places[:3], values, strict=True)
        ),
        f"{quoted(odd)} {quoted(places[3])} dmgfs noauto,ro",
    )
    try:
        assert said(inside.run("mount", "-a", "-T", table)) == QUIET
        for there, shadow in zip(places[:3], shadows, strict=True):
            assert "rw" in inside.options(there)
            assert shadow.stat().st_mode & 0o777 == 0o600
        assert not inside.options(places[3])
        again = inside.run("mount", "-a", "-T", table)
        assert again.returncode == 0, "what is mounted already is left alone"
    finally:
        for there in places[1:]:
            inside.run("umount", there)


# -- remount ------------------------------------------------------------------------------------------------------------


def test_remount(inside, image, place):
    assert said(inside.run("mount", "-t", "dmgfs", image, place, "-o", "shadow=ram:1M,noexec")) == QUIET
    for words, expected in (("ro", {"ro", "noexec"}), ("rw,noatime", {"rw", "noatime", "noexec"}), ("exec", {"rw"})):
        assert said(inside.run("mount", "-o", f"remount,{words}", place)) == QUIET
        assert expected | {"nosuid", "nodev"} <= inside.options(place)
    assert "noexec" not in inside.options(place)
    busy = 'exec 3>"$PLACE/open"; mount -o remount,ro "$PLACE"'
    done = inside.run("sh", "-c", busy, env={"PLACE": str(place)})
    assert done.returncode != 0
    assert "open for writing" in done.stderr
    other = inside.run("mount.dmgfs", image, place, "-o", "remount,shadow=/other.shadow")
    assert other.returncode == 1
    assert "dmgfs shadow attach" in other.stderr


def test_what_has_no_shadow_does_not_become_writable(inside, image, place):
    assert said(inside.run("mount", "-r", "-t", "dmgfs", image, place)) == QUIET
    done = inside.run("mount.dmgfs", image, place, "-o", "remount,rw")
    assert done.returncode == 32
    assert "dmgfs shadow attach" in done.stderr
    assert "ro" in inside.options(place)
    assert inside.run("mount.dmgfs", image, place, "-o", "remount,noatime").returncode == 0
    assert {"ro", "noatime"} <= inside.options(place)


def test_remount_of_nothing(inside, image, place):
    done = inside.run("mount.dmgfs", image, place, "-o", "remount,ro")
    assert (done.returncode, done.stderr) == (32, f"dmgfs: {image}: {place}: nothing is mounted there\n")


# -- unmounting --------------------------------------------------------------------------------------------------------


def test_unmounting_does_not_wait_for_a_daemon_that_goes_on(inside, image, place, tmp_path):
    """The same mount once more, bound elsewhere: the daemon has to live."""
    second = tmp_path / "second"
    second.mkdir()
    assert said(inside.run("mount", "-r", "-t", "dmgfs", image, place)) == QUIET
    inside.shell('mount --bind "$ONE" "$TWO"', ONE=str(place), TWO=str(second))
    assert said(inside.run("dmgfs", "unmount", place, timeout=20)) == QUIET
    assert inside.shell('cat "$TWO/ReadMe"', TWO=str(second)) == "read me\n"
    assert said(inside.run("dmgfs", "unmount", second)) == QUIET
