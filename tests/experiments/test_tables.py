"""Tables printed to a terminal."""

from experiments import tables


def test_brackets_are_text(capsys):
    """Not markup, as in the name of a class or the message of another framework."""
    tables.show("", [{"[class]": "[other]", "why": "[/enforce fail]"}])
    printed = capsys.readouterr().out
    for text in ("[class]", "[other]", "[/enforce fail]"):
        assert text in printed
