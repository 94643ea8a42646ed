"""Commands in the test's own process, with streams of a given encoding: starting TensorFlow takes longest."""

import contextlib
import io
import sys

from conftest import Ended

from trainer import __main__ as commands


class _Stream(io.TextIOWrapper):
    """What a program writes, encoded as strictly as Python does for a terminal or a pipe of that encoding."""

    def __init__(self, encoding, data=b""):
        super().__init__(io.BytesIO(data), encoding=encoding, errors="strict")

    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@contextlib.contextmanager
def streams(out, err, stdin):
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin, sys.stdout, sys.stderr = stdin, out, err
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def command(*words, encoding="ascii", stdin=b"", out=None):
    """Runs `python -m trainer WORDS…`; returns how it `Ended`. `out` takes the place of stdout."""
    stdout, stderr = out or _Stream(encoding), _Stream(encoding)
    with streams(stdout, stderr, _Stream("utf-8", stdin)):
        code = commands.main(list(map(str, words)))
    return Ended(code, "" if out else stdout.text(), stderr.text())
