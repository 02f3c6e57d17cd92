import pytest

from trainer.config.path_text import expand_variables


def test_replaces_variables_and_home(monkeypatch):
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("HOME", "/home/ada")
    assert expand_variables("${DATA}/train-*") == "/data/train-*"
    assert expand_variables("~/runs") == "/home/ada/runs"
    assert expand_variables("plain/path") == "plain/path"
    assert expand_variables("a$$b/$${DATA}/${DATA}") == "a$b/${DATA}//data"


def test_names_the_variable_that_is_not_set(monkeypatch):
    monkeypatch.delenv("IMAGENET", raising=False)
    with pytest.raises(ValueError, match="IMAGENET is not"):
        expand_variables("${IMAGENET}/train-*")


@pytest.mark.parametrize("text", ["$DATA/x", "a$", "${}/x", "${1A}"])
def test_refuses_a_dollar_without_a_name_in_braces(text):
    with pytest.raises(ValueError, match=r"\$\{NAME\}"):
        expand_variables(text)
