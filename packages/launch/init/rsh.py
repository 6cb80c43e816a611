"""trainyard-rsh: a remote shell with ssh's command line between the hosts of one job. DESIGN.md section 5.

Uses `_socket`, the C part of `socket`, because importing the rest would take longer than everything else here.
"""

import os
import sys

import _socket
import frames

_OPTIONS_WITH_VALUE = 'BbcDEeFIiJLlmOopQRSWw'


def parse(arguments):
    """ssh's command line → (host, command). @raises SystemExit 255, as ssh does for a usage error."""
    rest = list(arguments)
    while rest and rest[0].startswith('-') and rest[0] != '--':
        option = rest.pop(0)
        for index, letter in enumerate(option[1:], 2):
            if letter in _OPTIONS_WITH_VALUE:
                if index == len(option) and rest:
                    rest.pop(0)
                break
    if rest and rest[0] == '--':
        rest.pop(0)
    if len(rest) < 2:
        sys.stderr.write('trainyard-rsh: usage: trainyard-rsh [ssh options] HOST COMMAND...; a command is required\n')
        raise SystemExit(255)
    return rest[0].rpartition('@')[2], ' '.join(rest[1:])


def main():
    host, command = parse(sys.argv[1:])
    # The program lies in <run directory>/bin, the hosts' sockets in <run directory>/peers.
    peers = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0]))) + '/peers/'
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(peers + host + '.sock')
    except OSError as error:
        known = sorted(name[:-5] for name in os.listdir(peers) if name.endswith('.sock'))
        sys.stderr.write('trainyard-rsh: host %s of this job cannot be reached: %s; its hosts are %s\n' % (
            host, os.strerror(error.errno), ', '.join(known)))
        raise SystemExit(255) from None
    environment = [key + b'=' + value for key, value in os.environb.items()]
    message = frames.pack([os.fsencode(command)] + environment)
    descriptors = b''.join(fd.to_bytes(4, sys.byteorder) for fd in (0, 1, 2))
    sent = sock.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    while sent < len(message):
        sent += sock.send(message[sent:])
    reply = b''
    while not reply.endswith(b'\n'):
        data = sock.recv(4096)
        if not data:
            sys.stderr.write('trainyard-rsh: host %s ended while the command ran\n' % host)
            raise SystemExit(255)
        reply += data
    kind, _, value = reply.decode().strip().partition(' ')
    if kind == 'exit':
        os._exit(int(value))
    sys.stderr.write('trainyard-rsh: host %s: %s\n' % (host, value))
    raise SystemExit(255)
