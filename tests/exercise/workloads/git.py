"""git: a history of commits, a merge, clones with and without hard links, repacking, `fsck --full`."""

import random
from pathlib import Path

from exercise.workloads.home import Home, run

COMMITS = 25
AUTHOR = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "c", "GIT_COMMITTER_EMAIL": "c@d",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


def live(home: Home) -> None:
    top = home.place / "project"
    chance = random.Random(1)

    def git(*words: str | Path, cwd: Path = top) -> str:
        return run("git", "-c", "init.defaultBranch=main", *words, cwd=cwd, **AUTHOR)

    top.mkdir()
    git("init", "-q")
    for number in range(COMMITS):
        for _ in range(20):
            file = top / f"d{chance.randrange(8)}" / f"f{chance.randrange(40)}"
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{number} {chance.random()}\n" * chance.randrange(1, 400))
        git("add", "-A")
        git("commit", "-q", "-m", f"commit {number}")
        if number == COMMITS // 2:
            git("branch", "side")
    git("checkout", "-q", "side")
    (top / "of the side").write_text("side\n")
    git("add", "-A")
    git("commit", "-q", "-m", "side")
    git("checkout", "-q", "main")
    git("merge", "-q", "-m", "merge", "side")
    tree = git("rev-parse", "HEAD^{tree}")
    git("clone", "-q", "--local", top, home.place / "linked")
    git("clone", "-q", "--no-hardlinks", top, home.place / "copied")
    git("clone", "-q", f"file://{top}", home.place / "sent")
    for clone in ("linked", "copied", "sent"):
        place = home.place / clone
        assert git("rev-parse", "HEAD^{tree}", cwd=place) == tree
        git("fsck", "--full", "--strict", cwd=place)
        assert git("status", "--porcelain", cwd=place) == ""
    git("gc", "-q", "--aggressive", "--prune=now")
    git("repack", "-q", "-a", "-d", "-f", cwd=home.place / "linked")
    for name in ("project", "linked"):
        git("fsck", "--full", "--strict", cwd=home.place / name)
        git("status", "--porcelain", cwd=home.place / name)
    if home.lasts:
        home.leave()
        home.enter()
        for name in ("project", "linked", "copied", "sent"):
            git("fsck", "--full", "--strict", cwd=home.place / name)
            assert git("status", "--porcelain", cwd=home.place / name) == ""
    home.notes.append(f"{git('rev-list', '--count', 'HEAD').strip()} commits, three clones, gc, fsck --full --strict")
