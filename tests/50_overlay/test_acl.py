"""Access control lists as arithmetic, held against the rules of acl(5)."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay import acl
from overlay.acl import GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, Rule

NO_ID = 0xFFFFFFFF
permissions = st.integers(0, 7)


@st.composite
def lists(draw: st.DrawFn) -> list[Rule]:
    """Any sound list, in the kernel's order."""
    users = draw(st.lists(st.tuples(st.integers(0, 9), permissions), max_size=3, unique_by=lambda pair: pair[0]))
    groups = draw(st.lists(st.tuples(st.integers(0, 9), permissions), max_size=3, unique_by=lambda pair: pair[0]))
    rules = [Rule(USER_OBJ, draw(permissions), NO_ID)]
    rules += [Rule(USER, bits, ident) for ident, bits in sorted(users)]
    rules.append(Rule(GROUP_OBJ, draw(permissions), NO_ID))
    rules += [Rule(GROUP, bits, ident) for ident, bits in sorted(groups)]
    if users or groups or draw(st.booleans()):
        rules.append(Rule(MASK, draw(permissions), NO_ID))
    return [*rules, Rule(OTHER, draw(permissions), NO_ID)]


def tagged(rules: list[Rule], tag: int) -> int | None:
    found = [rule.permissions for rule in rules if rule.tag == tag]
    return found[0] if found else None


@given(lists())
def test_what_is_packed_is_parsed(rules: list[Rule]) -> None:
    assert acl.parse(acl.pack(rules)) == rules


@given(lists(), st.integers(0, 0o777))
def test_bits_and_list_follow_each_other(rules: list[Rule], mode: int) -> None:
    after = acl.after_chmod(rules, mode)
    assert acl.bits(after) == mode
    assert len(after) == len(rules)
    kept = {USER, GROUP} | ({GROUP_OBJ} if tagged(rules, MASK) is not None else set())
    assert [rule for rule in after if rule.tag in kept] == [rule for rule in rules if rule.tag in kept]


@given(lists(), st.integers(0, 0o7777))
def test_nothing_is_inherited_that_list_or_mode_forbids(default: list[Rule], mode: int) -> None:
    rules, bits = acl.inherited(default, mode)
    assert bits & 0o7000 == mode & 0o7000
    assert bits & 0o777 == acl.bits(default) & mode & 0o777
    assert acl.bits(rules) == bits & 0o777
    assert [(rule.tag, rule.id) for rule in rules] == [(rule.tag, rule.id) for rule in default]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: value[:-1],
        lambda value: b"\1" + value[1:],
        lambda value: value[:4],
        lambda value: value + value[4:12],
        lambda value: value[:6] + b"\x08" + value[7:],
        lambda value: value[:4] + b"\x40" + value[5:],
        lambda value: value + acl.pack([Rule(USER, 4, 5)])[4:],
    ],
    ids=["empty", "short", "version", "no rules", "owner twice", "rwx beyond 7", "tag", "named without mask"],
)
def test_nonsense_is_refused(damage) -> None:
    sound = acl.pack([Rule(USER_OBJ, 6, NO_ID), Rule(GROUP_OBJ, 4, NO_ID), Rule(OTHER, 4, NO_ID)])
    acl.parse(sound)
    with pytest.raises(OSError, match="Invalid") as caught:
        acl.parse(damage(sound))
    assert caught.value.errno == errno.EINVAL
