from trainer.position import Position


def test_steps_are_data_steps_until_a_window_is_skipped():
    position = Position()
    assert [position.data_step(step) for step in (0, 7)] == [0, 7]
    window = position.skip(from_step=10, bad_step=12)
    assert (window.step, window.first, window.last) == (10, 10, 12)
    assert position.data_step(10) == 13
    assert position.skip(from_step=20, bad_step=20).first == 23
    assert position.data_step(20) == 24


def test_a_checkpoint_holds_the_windows():
    position = Position()
    position.skip(3, 5)
    assert Position(position.as_json()).data_step(3) == position.data_step(3) == 6
