"""The door of a job: a process in the machine's network that serves sockets opened inside the job's network.

A listening socket belongs to the namespace in which it was opened, whoever accepts from it. So hosts reach 10.77.0.1, and the other
side of each connection starts here, outside: the service's unix socket, or the internet by way of `egress`.
"""

import os
import signal
import socket
import threading

import egress
import relay
import syscalls

_MOST_CONNECTIONS = 2048


def run(plan, listeners):
    """Never returns. Holds no capability: what hosts send is parsed here."""
    syscalls.die_with_parent(signal.SIGKILL)
    syscalls.forbid_new_privileges()
    syscalls.limit_capabilities(0)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    threading.stack_size(256 << 10)
    slots = threading.BoundedSemaphore(_MOST_CONNECTIONS)
    services = [lambda inner: _to_gateway(inner, plan['gatewaySocket'])]
    if len(listeners) > 1:
        policy = egress.Policy(plan['egressAllow'], os.environ)
        services.append(lambda inner: egress.serve(inner, policy))
    threads = [threading.Thread(target=_accept, args=(fd, service, slots)) for fd, service in zip(listeners, services)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _accept(fd, service, slots):
    with socket.socket(fileno=fd) as listener:
        listener.setblocking(True)
        while True:
            inner, _ = listener.accept()
            slots.acquire()
            threading.Thread(target=_serve, args=(inner, service, slots), daemon=True).start()


def _serve(inner, service, slots):
    try:
        with inner:
            service(inner)
    except OSError:
        pass  # either side went away; both are closed, and the peer sees that
    finally:
        slots.release()


def _to_gateway(inner, path):
    """A new connection for each: a service that was started again is found at the same path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as outer:
        # A unix path may be longer than the 107 bytes of an address; through a descriptor of its directory it is not.
        directory = os.open(os.path.dirname(path), os.O_PATH)
        try:
            outer.connect('/proc/self/fd/%d/%s' % (directory, os.path.basename(path)))
        finally:
            os.close(directory)
        relay.join(inner, outer)
