"""Messages between our own small programs: b'<length>\\n' and that many bytes, fields separated by NUL.

Not JSON: importing it would double the start time of the remote shell and of the interpreter wrapper, and parsing fields needs
nothing that a hostile peer could exploit. Descriptors travel with the first byte.
"""

LIMIT_BYTES = 8 << 20


def pack(fields):
    body = b'\0'.join(fields)
    return b'%d\n' % len(body) + body


class Incoming:
    """Collects one message; `fields` is None until it is complete. @raises ValueError for anything malformed."""

    def __init__(self):
        self._data = b''
        self.fields = None

    def feed(self, data):
        self._data += data
        head, newline, body = self._data.partition(b'\n')
        if not newline and len(head) < 10:
            return
        if not head.isdigit() or len(head) > 9 or int(head) > LIMIT_BYTES:
            raise ValueError('message length %r is not a number of at most %d bytes' % (head[:12], LIMIT_BYTES))
        if len(body) >= int(head):
            self.fields = body[:int(head)].split(b'\0')


def split_environment(entries):
    """[b'K=V', …] → {b'K': b'V'}; an entry without '=' is dropped, as the C library does."""
    return dict(entry.split(b'=', 1) for entry in entries if b'=' in entry)
