import json

from cluster.assignment import Assignment, ErrorReport, Member


def test_assignments_and_errors_survive_json() -> None:
    members = (Member("w1", "a", 0, "10.0.0.1:4711"), Member("w2", "b", 1, "[::1]:4711"))
    assignment = Assignment(7, 1, members, None)
    again = Assignment.from_json(json.loads(json.dumps(assignment.to_json())))
    assert again == assignment and again.itself.address == "[::1]:4711" and again.chief.host == "a"
    error = ErrorReport("ValueError", "bad", "Traceback ...", 40, True)
    assert ErrorReport.from_json(json.loads(json.dumps(error.to_json()))) == error
