"""Who reads which block, when, and whose answer counts: all of it without a clock."""

import numpy as np
import pytest

from cluster.data_service.block import Block
from cluster.data_service.board import Board, Patience, Reader

A, B, HERE = Reader("a", 0), Reader("b", 0), Reader("this process", 0)
PATIENCE = Patience(hedge_s=1.0, hedge_ratio=3.0, suspect_s=5.0, suspect_ratio=10.0, unknown_s=20.0)


def block(value: int) -> Block:
    return Block({"x": np.array([value])})


def taken(board: Board) -> list[int]:
    found = []
    while isinstance(result := board.next_result(), Block):
        found.append(int(result.arrays["x"][0]))
    return found


def test_blocks_leave_in_their_order_however_they_come():
    board = Board(3, window=3, patience=PATIENCE)
    assert [board.take(0.0, A), board.take(0.0, B)] == [0, 1]
    board.put(1.0, 1, B, block(1))
    assert taken(board) == [] and not board.is_over
    assert board.take(1.0, B) == 2
    board.put(2.0, 0, A, block(0))
    board.put(2.0, 2, B, block(2))
    assert taken(board) == [0, 1, 2] and board.is_over


def test_nobody_reads_further_ahead_than_the_window():
    board = Board(10, window=2, patience=PATIENCE)
    assert [board.take(0.0, A), board.take(0.0, B), board.take(0.0, HERE)] == [0, 1, None]
    board.put(1.0, 0, A, block(0))
    assert board.take(1.0, A) is None, "what lies ready counts as well"
    assert taken(board) == [0] and board.take(1.0, A) == 2


def test_a_block_of_a_reader_that_is_lost_is_read_by_another():
    board = Board(2, window=2, patience=PATIENCE)
    assert board.take(0.0, A) == 0
    board.give_back(0, A, refused=False)
    assert board.take(0.0, B) == 0


@pytest.mark.parametrize("first", [A, B])
def test_a_slow_block_is_given_to_a_second_worker_and_the_first_answer_counts(first):
    board = Board(3, window=3, patience=PATIENCE)
    assert board.take(0.0, A) == 0
    board.put(0.1, 0, A, block(0))
    assert [board.take(0.1, A), board.take(0.1, B)] == [1, 2]
    board.put(0.2, 2, B, block(2))
    assert board.take(1.0, B) is None, "not late yet"
    assert board.take(1.2, Reader("a", 1)) is None, "the same worker would be as slow"
    assert board.take(1.2, B) == 1 and board.take(1.2, Reader("c", 0)) is None, "two are enough"
    second = B if first is A else A
    board.put(1.3, 1, first, block(1))
    board.put(1.4, 1, second, block(-1))
    assert taken(board) == [0, 1, 2]


def test_this_process_reads_what_a_worker_refuses_and_what_comes_far_too_late():
    board = Board(3, window=3, patience=PATIENCE)
    assert board.take(0.0, A) == 0 and board.take_here(0.0, HERE) is None
    board.give_back(0, A, refused=True)
    assert board.take(0.0, B) == 1, "another worker would refuse it as well"
    assert board.take_here(0.0, HERE) == 0
    board.put(0.1, 0, HERE, block(0))
    assert board.take_here(4.0, HERE) is None
    assert board.answers(4.0, B) and not board.answers(5.0, B)
    assert board.take_here(5.0, HERE) == 1


def test_an_error_takes_the_place_of_its_block():
    board = Board(1, window=1, patience=PATIENCE)
    assert board.take(0.0, HERE) == 0
    board.put(0.0, 0, HERE, ValueError("no such record"))
    assert isinstance(board.next_result(), ValueError)
