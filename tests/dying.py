"""A process that dies between two steps, as far as what it leaves on disk goes."""


class Killed(BaseException):
    """The process died."""


def killed_before(monkeypatch, steps, number, work) -> list[str]:
    """Do `work` and die before its step `number`; the steps that were begun, then "killed" if it died.

    `steps` are pairs of an owner and the name of one of its functions, each call of which is a step.
    """
    begun = []

    def dying(label, original):
        def step(*args, **kwargs):
            if len(begun) == number:
                raise Killed
            begun.append(label)
            return original(*args, **kwargs)

        return step

    with monkeypatch.context() as patch:
        for owner, name in steps:
            patch.setattr(owner, name, dying(f"{owner.__name__}.{name}", getattr(owner, name)))
        try:
            work()
        except Killed:
            begun.append("killed")
    return begun
