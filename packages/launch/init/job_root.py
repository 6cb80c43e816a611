"""PID 1 of a job: owns the job's network, starts the inits, tells the gang process when one has ended."""

import contextlib
import json
import os
import select
import signal
import socket

import children
import host
import netlink
import processes
import rootfs
import syscalls

GATEWAY_PORT, EGRESS_PORT = 9400, 9401
_BRIDGE, _PREFIX_LENGTH = 'br0', 24


def run(plan, control, lifeline):
    syscalls.die_with_parent(signal.SIGKILL)
    try:
        step = 'network'
        listeners = _network(plan)
        socket.send_fds(control, [b'{}'], [listener.fileno() for listener in listeners])
        for listener in listeners:
            listener.close()
        step = 'hosts'
        inits = _start_hosts(plan, control, lifeline)
    except OSError as error:
        control.send(json.dumps({'failed': str(error), 'step': getattr(error, 'step', step)}).encode())
        return
    control.send(json.dumps({'ready': {name: pid for pid, name in inits.items()}}).encode())
    _watch(inits, control, lifeline)


def _network(plan):
    syscalls.unshare(syscalls.CLONE_NEWNET)
    netlink.set_up('lo')
    netlink.add_bridge(_BRIDGE)
    netlink.add_address(_BRIDGE, plan['gatewayAddress'], _PREFIX_LENGTH)
    netlink.set_up(_BRIDGE)
    # A packet that nobody can deliver is answered "unreachable" at once, not left to a connect timeout of minutes.
    with open('/proc/sys/net/ipv4/ip_forward', 'w', encoding='ascii') as file:
        file.write('1')
    ports = [GATEWAY_PORT] if plan['networkIsolated'] else [GATEWAY_PORT, EGRESS_PORT]
    return [socket.create_server((plan['gatewayAddress'], port), backlog=1024) for port in ports]


def _start_hosts(plan, control, lifeline):
    own_namespace = os.open('/proc/self/ns/pid', os.O_RDONLY)
    inits, channels = {}, {}
    for member in plan['hosts']:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The first child after this call is PID 1 of the new namespace; the second call leads back to our own.
        syscalls.unshare(syscalls.CLONE_NEWPID)
        pid = children.fork(lambda member=member, end=theirs: _init(plan, member, end, lifeline),
                            close=[control.fileno(), ours.fileno(), own_namespace,
                                   *(other.fileno() for other in channels.values())])
        syscalls.setns(own_namespace, syscalls.CLONE_NEWPID)
        theirs.close()
        inits[pid] = member['name']
        channels[pid] = ours
    os.close(own_namespace)
    for index, (pid, channel) in enumerate(channels.items()):
        _expect(channel, b'unshared', inits[pid])
        netlink.add_cable('v%d' % index, _BRIDGE, 'eth0', pid)
        channel.send(b'cabled')
    for pid, channel in channels.items():
        _expect(channel, b'ready', inits[pid])
    for channel in channels.values():
        channel.send(b'start')
        channel.close()
    return inits


def _expect(channel, word, name):
    answer = channel.recv(1 << 16)
    if answer != word:
        error = OSError('%s: %s' % (name, answer.decode() or 'its init ended; see outer.log'))
        error.step = 'host'
        raise error


def _init(plan, member, channel, lifeline):
    """From here on this is the host's init."""
    try:
        syscalls.die_with_parent(signal.SIGKILL)
        syscalls.unshare(syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC)
        channel.send(b'unshared')
        channel.recv(16)
        netlink.set_up('lo')
        netlink.add_address('eth0', member['address'], _PREFIX_LENGTH)
        netlink.set_up('eth0')
        netlink.add_default_route(plan['gatewayAddress'])
        _allow_ping()
        socket.sethostname(member['name'])
        init = host.Init(member, True, lifeline)
        init.listen()
        init.keep_state()
        rootfs.enter(plan, member)
        syscalls.forbid_new_privileges()
        syscalls.limit_capabilities(host.JOB_CAPABILITIES | host.GUARD_CAPABILITY)
        if not syscalls.permitted_capabilities() & host.GUARD_CAPABILITY:
            raise OSError('the capability AUDIT_WRITE is not among those of the service; it keeps the agent closed to scripts')
        syscalls.set_dumpable(0)  # also what init's children are until they have become a program
    except OSError as error:
        channel.send(str(error).encode())
        return
    channel.send(b'ready')
    if channel.recv(16) != b'start':
        return
    channel.close()
    init.run()


def _allow_ping():
    """Without NET_RAW it needs this; nothing else does."""
    with contextlib.suppress(OSError), open('/proc/sys/net/ipv4/ping_group_range', 'w', encoding='ascii') as file:
        file.write('0 0')


def _watch(inits, control, lifeline):
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: [processes.send(pid, signal.SIGTERM) for pid in list(inits)])
    poll = select.poll()
    poll.register(wake_read, select.POLLIN)
    poll.register(lifeline, 0)
    while True:
        for pid, status in children.reap():
            name = inits.pop(pid, None)
            if name is not None:
                control.send(json.dumps({'gone': name, 'status': status}).encode())
        if not inits:
            return
        for fd, _ in poll.poll():
            if fd == lifeline:
                return  # the kernel ends the rest with us
            os.read(fd, 4096)
