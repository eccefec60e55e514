"""The boundary: whatever a handler raises or answers, pyfuse3 sees a FUSEError with an errno or a valid answer."""

import errno
import logging

import pyfuse3
import pytest
import trio

from dmgfs.errors import CorruptImage, OutOfRange, Unsupported
from dmgfs.fuse.boundary import ANSWERS, Boundary, guard
from dmgfs.fuse.operations import DmgOperations

HANDLERS = sorted(
    name
    for name in dir(pyfuse3.Operations)
    if not name.startswith("_") and callable(getattr(pyfuse3.Operations, name))
)
REQUESTS = [name for name in HANDLERS if name not in ("init", "stacktrace", "forget")]


class Failing(pyfuse3.Operations):
    """Every handler raises (or answers) the same."""

    def __init__(self, failure: BaseException | None = None, answer: object = None) -> None:
        super().__init__()
        self.failure = failure
        self.answer = answer


async def _fail(self: Failing, *arguments: object) -> object:
    if self.failure is not None:
        raise self.failure
    return self.answer


for _name in HANDLERS:
    if _name not in ("init", "stacktrace"):
        setattr(Failing, _name, _fail)


async def errno_for(failure: BaseException, request: str = "read") -> int:
    operations = guard(Failing(failure), Boundary())
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations, request)(1, 2, 3)
    return caught.value.errno


CASES = [
    (FileNotFoundError(errno.ENOENT, "gone"), errno.ENOENT),
    (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    (OSError(errno.EROFS, "read-only"), errno.EROFS),
    (OSError("without errno"), errno.EIO),
    (OSError(errno.ENOSYS, "would silence this request for good"), errno.ENOTSUP),
    (OSError(-5, "nonsense"), errno.EIO),
    (OSError(1 << 20, "nonsense"), errno.EIO),
    (CorruptImage("HFS+", "node 5", "torn"), errno.EIO),
    (OutOfRange("runs", "read", "outside", 0), errno.EIO),
    (Unsupported("ZBM"), errno.ENOTSUP),
    (MemoryError(), errno.ENOMEM),
    (KeyError("bug"), errno.EIO),
    (RecursionError("bug"), errno.EIO),
    (StopIteration("bug"), errno.EIO),
    (SystemExit(3), errno.EIO),
    (KeyboardInterrupt(), errno.EIO),
    (GeneratorExit(), errno.EIO),
    (ExceptionGroup("two", [ValueError(), KeyError()]), errno.EIO),
    (BaseExceptionGroup("two", [SystemExit(), KeyError()]), errno.EIO),
    (pyfuse3.FUSEError(errno.ENOSYS), errno.ENOSYS),
]


@pytest.mark.parametrize(("failure", "expected"), CASES, ids=lambda case: repr(case)[:40])
async def test_what_is_raised_becomes_an_errno(failure, expected):
    assert await errno_for(failure) == expected


@pytest.mark.parametrize("request_", REQUESTS)
async def test_no_handler_is_forgotten(request_):
    assert await errno_for(KeyError("bug"), request_) == errno.EIO


@pytest.mark.parametrize("request_", ["write", "create", "mkdir", "setattr", "setxattr", "rename"])
async def test_no_memory_for_a_change_is_no_space(request_):
    assert await errno_for(MemoryError(), request_) == errno.ENOSPC


async def test_forget_has_no_answer_so_it_swallows():
    boundary = Boundary()
    await guard(Failing(KeyError("bug")), boundary).forget([(5, 1)])
    await guard(Failing(pyfuse3.FUSEError(5)), boundary).forget([(5, 1)])
    assert boundary.failures["forget:KeyError"] == 1


async def test_a_cancelled_handler_answers_and_its_task_ends_at_the_next_wait(caplog):
    class Waiting(pyfuse3.Operations):
        async def read(self, *arguments: object) -> bytes:
            await trio.sleep_forever()
            return b""

    operations = guard(Waiting(), Boundary())
    answered = []
    with trio.move_on_after(0.01) as scope:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await operations.read(1, 0, 1)
        answered.append(caught.value.errno)
        await trio.sleep(10)
    assert scope.cancelled_caught
    assert answered == [errno.EIO]
    assert caplog.records == []


def test_a_handler_swept_up_after_the_loop_may_go():
    class Failing(pyfuse3.Operations):
        async def read(self, *arguments: object) -> bytes:
            raise GeneratorExit

    handler = guard(Failing(), Boundary()).read(1, 0, 1)
    with pytest.raises(GeneratorExit):
        handler.send(None)  # no trio around it


@pytest.mark.parametrize("request_", sorted(ANSWERS))
@pytest.mark.parametrize("answer", [None, "text", object(), [b"x", "y"], memoryview(bytes(8))[::2]], ids=repr)
async def test_an_answer_that_pyfuse3_cannot_send_is_an_error(request_, answer):
    operations = guard(Failing(answer=answer), Boundary())
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await getattr(operations, request_)(1)
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("answer", [b"x", bytearray(b"x"), memoryview(b"xyz")[1:2]])
async def test_any_contiguous_buffer_is_an_answer_to_read(answer):
    assert await guard(Failing(answer=answer), Boundary()).read(1, 0, 1) is answer


def test_the_only_requests_left_to_pyfuse3_are_those_that_the_kernel_answers_better():
    inherited = [name for name in HANDLERS if getattr(DmgOperations, name) is getattr(pyfuse3.Operations, name)]
    assert inherited == ["access", "flush", "init", "poll", "stacktrace"]


async def test_one_traceback_a_minute_and_a_count_of_all(caplog):
    boundary = Boundary()
    operations = guard(Failing(KeyError("the same bug")), boundary)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            with pytest.raises(pyfuse3.FUSEError):
                await operations.read(1, 0, 1)
    assert len(caplog.records) == 1
    assert "the same bug" in caplog.text
    assert "test_boundary.py" in caplog.text, "the frames are there"
    assert "raise self.failure" not in caplog.text, "source lines are not read"
    assert boundary.failures["read:KeyError"] == 50


async def test_a_thousand_different_faults_are_no_flood(caplog):
    boundary = Boundary()
    for number in range(1000):
        operations = guard(Failing(CorruptImage("HFS+", f"node {number}", "torn")), boundary)
        with pytest.raises(pyfuse3.FUSEError):
            await operations.read(1, 0, 1)
    assert 0 < len(caplog.records) < 100
    assert boundary.failures["read:CorruptImage"] == 1000


async def test_a_disk_that_fails_is_reported(caplog):
    await errno_for(OSError(errno.EIO, "the file became shorter"))
    assert "became shorter" in caplog.text


async def test_ordinary_refusals_are_no_news(caplog):
    with caplog.at_level(logging.DEBUG):
        await errno_for(FileNotFoundError(errno.ENOENT, "gone"))
    assert caplog.records == []


async def test_damage_is_reported_without_a_traceback_and_without_control_characters(caplog):
    await errno_for(CorruptImage("HFS+", "name \x1b[31m\n", "torn"))
    assert len(caplog.records) == 1
    assert "\x1b" not in caplog.text
    assert "in guarded" not in caplog.text


async def test_an_exception_whose_text_fails_is_still_answered():
    class Nasty(Exception):
        def __str__(self) -> str:
            raise ValueError

    assert await errno_for(Nasty()) == errno.EIO
