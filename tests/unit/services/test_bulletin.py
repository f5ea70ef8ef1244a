from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from taskhub.services.bulletin import Bulletin


def test_a_task_stands_where_it_last_changed():
    bulletin = Bulletin()
    for number in (1, 2, 1, 3):
        bulletin.note(number)
    assert [c.number for c in bulletin.after(0, 9)] == [2, 1, 3]
    assert [c.number for c in bulletin.after(0, 2)] == [2, 1]
    assert (len(bulletin), bulletin.last, bulletin.oldest) == (3, 4, 2)


def test_when_a_task_was_new_is_kept_with_its_later_changes():
    bulletin = Bulletin()
    bulletin.note(5)
    bulletin.note(6, is_new=True)
    bulletin.note(6)
    assert [c.created for c in bulletin.after(0, 9)] == [0, 2]


def test_what_everybody_has_read_is_forgotten():
    bulletin = Bulletin()
    for number in (1, 2, 3):
        bulletin.note(number)
    bulletin.drop(2)
    assert [c.number for c in bulletin.after(0, 9)] == [3]
    bulletin.drop(3)
    assert (len(bulletin), bulletin.oldest) == (0, 4)


@given(st.lists(st.integers(1, 6)), st.lists(st.integers(1, 4), min_size=1))
def test_a_reader_of_any_speed_ends_with_the_last_change_of_every_task(notes, steps):
    bulletin, position, seen = Bulletin(), 0, {}
    for i, number in enumerate(notes):
        bulletin.note(number)
        if i % 3 == 0:
            for change in bulletin.after(position, steps[i % len(steps)]):
                assert change.position > position
                position, seen[change.number] = change.position, change.position
    while changes := bulletin.after(position, 2):
        for change in changes:
            position, seen[change.number] = change.position, change.position
    last = {number: i for i, number in enumerate(notes, 1)}
    assert seen == last
