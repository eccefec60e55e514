"""Verbs on images behind URLs: the same as on files, and never a word of what is secret in a URL."""

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.encrypted import PASSPHRASE, encrypt_v2
from builders.rangeserver import Fault, RangeServer, serving
from exercise.mounted import dmgfs

from dmgfs.bootargs.cmdline import parse
from dmgfs.errors import WrongBootArgument


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def server(rich: Path) -> Iterator[RangeServer]:
    with serving(rich.read_bytes()) as server:
        yield server


@pytest.mark.parametrize(
    "verb", [["ls", "-lR"], ["cat", "text"], ["stat", "text", "--json"], ["xattr", "text"], ["verify"]]
)
def test_a_verb_says_the_same(run, rich: Path, server: RangeServer, verb: list[str]) -> None:
    name, *rest = verb
    here = run(name, rich, *rest)
    there = run(name, server.url, *rest)
    assert (there.code, there.out) == (here.code, here.out)
    assert there.out


def test_extract_and_convert(run, rich: Path, server: RangeServer, tmp_path: Path) -> None:
    assert run("extract", server.url, "text", "-C", tmp_path / "there").code == 0
    assert run("extract", rich, "text", "-C", tmp_path / "here").code == 0
    assert (tmp_path / "there" / "text").read_bytes() == (tmp_path / "here" / "text").read_bytes()
    for image, name in ((server.url, "there.img"), (rich, "here.img")):
        assert run("convert", image, tmp_path / name, "--to", "raw").code == 0
    assert (tmp_path / "there.img").read_bytes() == (tmp_path / "here.img").read_bytes()


def test_diff_finds_nothing(run) -> None:
    sample = Path(__file__).parents[1] / "data" / "sample.dmg"
    with serving(sample.read_bytes()) as server:
        assert run("diff", sample, server.url).code == 0
    said = run("diff", sample, server.url, "--delta", "out")
    assert (said.code, said.err.count("\n")) == (69, 1)


def test_info(run, rich: Path, server: RangeServer) -> None:
    facts = json.loads(run("info", server.url, "--json").out)
    assert facts["network"] == {"url": server.url, "size": len(server.data), "version": 'ETag "one"'}
    assert facts["stored_size"] == len(server.data)
    assert b'ETag "one"' in run("info", server.url).out


def test_an_encrypted_one(run, rich: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    with serving(encrypt_v2(rich.read_bytes())) as server:
        assert (
            run("cat", server.url, "text", "--passphrase-file", tmp_path / "passphrase").out
            == run("cat", rich, "text").out
        )


def test_an_image_in_an_image(run, server: RangeServer) -> None:
    said = run("info", f"{server.url}//missing.dmg")
    assert said.code == 66
    assert said.err == f"dmgfs: {server.url}//missing.dmg: No such file or directory\n"


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        (Fault(status=404), 66, "there is no such object on the server"),
        (Fault(status=403), 77, "refuses it (status 403)"),
        (Fault(status=200), 69, "range request with status 200"),
        (Fault(status=500), 74, "status 500, also after several attempts"),
    ],
)
def test_a_fault_is_one_line_without_secrets(run, server: RangeServer, fault: Fault, code: int, words: str) -> None:
    server.behave = lambda number, start: fault
    url = server.url.replace("://", "://me:secret@") + "?X-Amz-Signature=secret"
    said = run("info", url, "--network-timeout", "1")
    assert said.code == code
    assert said.err.startswith(f"dmgfs: {server.url}: ")
    assert said.err.count(server.url) == 1
    assert said.err.count("\n") == 1
    assert words in said.err
    assert "secret" not in said.err


def test_who_reads_is_told_to_the_server_alone(run, server: RangeServer) -> None:
    url = server.url.replace("://", "://me:secret@") + "?sign=secret"
    said = run("info", url)
    assert said.code == 0
    assert b"secret" not in said.out
    assert server.seen[0]["Authorization"] == "Basic bWU6c2VjcmV0"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For 127.0.0.1, by nobody."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "-", "-out", "-"]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


@pytest.fixture
def secure(rich: Path, certificate: Path) -> Iterator[RangeServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with serving(rich.read_bytes(), tls=context) as server:
        yield server


def test_a_certificate_by_nobody_is_not_accepted(secure: RangeServer) -> None:
    said = dmgfs("info", secure.url, "--network-timeout", "5")
    assert (said.code, said.err.count("\n")) == (74, 1)
    assert "certificate" in said.err
    assert said.seconds < 4  # it is not tried again


def test_https(secure: RangeServer, server: RangeServer, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    said = dmgfs("cat", secure.url, "text")
    assert said.code == 0, said.err
    secure.redirect = server.url
    said = dmgfs("cat", secure.url, "text")
    assert (said.code, said.err) == (
        74,
        f"dmgfs: {secure.url}: the server leads from https to http, which is not followed\n",
    )


def test_nobody_there(run) -> None:
    with serving(b"x") as server:
        pass
    said = run("info", server.url, "--network-timeout", "1")
    assert (said.code, said.err.count("\n")) == (74, 1)
    assert "Connection refused" in said.err


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("nonsense://host/image.dmg", 66, "not a URL that can be read"),
        ("sftp://host/image.dmg", 69, "reading sftp:// without its driver"),
        ("s3://bucket", 66, "write s3://BUCKET/KEY"),
    ],
)
def test_schemes(run, url: str, code: int, words: str) -> None:
    said = run("info", url)
    assert said.code == code, said.err
    assert words in said.err
    assert said.err.count("\n") == 1


def test_any_file_system_of_fsspec(run, rich: Path) -> None:
    assert run("ls", "-lR", rich.as_uri()).out == run("ls", "-lR", rich).out


def test_without_fsspec_it_says_what_is_missing(tmp_path: Path) -> None:
    program = "import sys; sys.modules['fsspec'] = None; from dmgfs.cli import main; sys.exit(main(sys.argv[1:]))"
    run = [sys.executable, "-c", program, "info", "https://host.invalid/image.dmg"]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    assert done.returncode == 69
    assert "pip install 'dmgfs[network]'" in done.stderr


def test_an_image_of_this_machine_needs_nothing_of_it(rich: Path) -> None:
    program = "import sys; from dmgfs.cli import main; main(sys.argv[1:]); print('\\n' + ' '.join(sys.modules))"
    run = [sys.executable, "-c", program, "ls", str(rich)]
    modules = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert not {name for name in modules if name.startswith(("fsspec", "aiohttp", "asyncio", "dmgfs.remote"))}


@pytest.mark.parametrize(
    "words",
    [
        ["--network-timeout", "0"],
        ["--network-timeout", "soon"],
        ["--network-cache", "/tmp/x:1K"],
    ],
)
def test_wrong_words(run, server: RangeServer, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("info", server.url, *words)
    assert ended.value.code == 64


def test_where_blocks_are_kept(run, server: RangeServer, tmp_path: Path) -> None:
    assert run("verify", server.url, "--network-cache", "none").code == 0
    assert not (tmp_path / "cache").exists()
    assert run("verify", server.url).code == 0
    assert len(list((tmp_path / "cache" / "dmgfs").iterdir())) > 1
    assert run("verify", server.url, "--network-cache", f"{tmp_path / 'other'}:8M").code == 0
    assert len(list((tmp_path / "other").iterdir())) > 1


def test_a_machine_does_not_boot_from_a_url() -> None:
    with pytest.raises(WrongBootArgument, match="fetch it"):
        parse("dmgfs.image=https://host/image.dmg")
