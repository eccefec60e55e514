"""A C compiler, make and ar: a project of many files whose objects and program are those that the same project makes in an
ordinary directory; make knows from the times what is to be made again."""

import hashlib
import shutil
import tempfile
from pathlib import Path

from exercise.workloads.home import Home, run

UNITS = 24

MAKEFILE = """\
OBJECTS = $(patsubst %.c,%.o,$(filter-out main.c,$(sort $(wildcard *.c))))
program: main.o libunits.a
\tcc -o $@ main.o libunits.a
libunits.a: $(OBJECTS)
\trm -f $@
\tar rcsD $@ $(OBJECTS)
%.o: %.c units.h
\tcc -O1 -c -o $@ $<
check: program
\t./program > answer
\tcmp answer expected
"""


def write(top: Path) -> None:
    top.mkdir()
    names = [f"unit{number}" for number in range(UNITS)]
    (top / "units.h").write_text("".join(f"long {name}(long);\n" for name in names))
    for number, name in enumerate(names):
        loop = f"for (int i = 0; i < {number + 3}; i++) x = (x * 31 + {number}) % 100003;"
        body = f"long {name}(long x) {{ {loop} return x; }}"
        (top / f"{name}.c").write_text(f'#include <string.h>\n#include "units.h"\n{body}\n')
    calls = "".join(f"    x = {name}(x);\n" for name in names)
    body = f'    long x = 1;\n{calls}    printf("%ld\\n", x);\n'
    main = f'#include <stdio.h>\n#include "units.h"\nint main(void) {{\n{body}}}\n'
    (top / "main.c").write_text(main)
    (top / "Makefile").write_text(MAKEFILE)
    x = 1
    for number in range(UNITS):
        for _ in range(number + 3):
            x = (x * 31 + number) % 100003
    (top / "expected").write_text(f"{x}\n")


def made(top: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in top.iterdir()}


def live(home: Home) -> None:
    top = home.place / "compile"
    with tempfile.TemporaryDirectory() as folder:
        ordinary = Path(folder) / "compile"
        write(ordinary)
        run("make", "-s", "-j2", "check", cwd=ordinary)
        write(top)
        run("make", "-s", "-j2", "check", cwd=top)
        assert made(top) == made(ordinary)
    run("make", "-q", "program", cwd=top)
    (top / "unit3.c").touch()
    told = run("make", "program", cwd=top)
    assert "unit3.c" in told, told
    assert "unit4.c" not in told, told
    run("make", "-q", "program", cwd=top)
    if home.lasts:
        home.leave()
        home.enter()
        run("make", "-q", "program", cwd=top)
        assert run(top / "program", cwd=top) == (top / "expected").read_text()
    shutil.rmtree(top)
    home.notes.append(f"{UNITS + 1} objects equal to those made elsewhere")
