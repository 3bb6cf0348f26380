"""What the tests of the exercises share: an answer nobody wrote, and what a wrong one must get."""


def stub(*_, **__):
    """An answer as the chapter leaves it."""


def refused(verdict, hint):
    """Expect a verdict that is negative and names the mistake."""
    assert not verdict
    assert str(verdict).startswith("Not quite: ") and hint in str(verdict)
