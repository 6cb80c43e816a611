"""The Linux calls that Python's standard library lacks (os.unshare and os.setns came with 3.12).

Every function raises OSError with the call's name in front, so that a failed step can be reported as it is.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

# Same numbers on every architecture: both calls are younger than the unified table.
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR = {MS_RDONLY: 0x1, MS_NOSUID: 0x2, MS_NODEV: 0x4}
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_HIGHEST_CAPABILITY = 63


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, '%s: %s' % (what, os.strerror(number)))
    return result


def _bytes(text):
    return None if text is None else os.fsencode(text)


def unshare(flags):
    _check(_libc.unshare(ctypes.c_int(flags)), 'unshare(0x%x)' % flags)


def setns(fd, flags):
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), 'setns(0x%x)' % flags)


def mount(source, target, kind=None, flags=0, data=None):
    result = _libc.mount(_bytes(source), _bytes(target), _bytes(kind), ctypes.c_ulong(flags), _bytes(data))
    _check(result, 'mount %s on %s' % (source or kind or 'flags', target))


def unmount(target, flags=0):
    _check(_libc.umount2(_bytes(target), ctypes.c_int(flags)), 'unmount %s' % target)


def pivot_root(new_root, put_old):
    """The C library has no wrapper, and the number differs by architecture."""
    number = {'x86_64': 155, 'aarch64': 41, 'riscv64': 41, 'ppc64le': 203, 's390x': 217}[os.uname().machine]
    _check(_libc.syscall(ctypes.c_long(number), _bytes(new_root), _bytes(put_old)), 'pivot_root %s' % new_root)


def restrict_mount(path, flags):
    """Adds MS_RDONLY, MS_NOSUID or MS_NODEV to the mount at `path` and everything below it.

    Never clears a flag: in a user namespace the flags that the machine set are locked.
    """
    attributes = 0
    for flag, attribute in _MOUNT_ATTR.items():
        attributes |= attribute if flags & flag else 0
    packed = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR), ctypes.c_int(_AT_FDCWD), _bytes(path),
        ctypes.c_uint(_AT_RECURSIVE), ctypes.byref(packed), ctypes.c_size_t(ctypes.sizeof(packed)))
    if result == 0:
        return
    if ctypes.get_errno() != 38:  # ENOSYS: kernels before 5.12
        _check(result, 'mount_setattr %s' % path)
    for target, kept in _mounts_below(path):
        mount(None, target, None, MS_REMOUNT | MS_BIND | flags | kept)


def _mounts_below(path):
    """(mount point, flags to keep) of `path` and below, from the mount table of this process."""
    names = {'ro': MS_RDONLY, 'nosuid': MS_NOSUID, 'nodev': MS_NODEV, 'noexec': MS_NOEXEC, 'noatime': 0x400,
             'nodiratime': 0x800, 'relatime': 0x200000}
    found = []
    with open('/proc/self/mountinfo', encoding='utf-8', errors='surrogateescape') as table:
        for line in table:
            fields = line.split(' ')
            point = fields[4].encode('utf-8', 'surrogateescape').decode('unicode_escape').encode('latin-1')
            point = os.fsdecode(point)
            if point == path or point.startswith(path.rstrip('/') + '/'):
                kept = 0
                for option in fields[5].split(','):
                    kept |= names.get(option, 0)
                found.append((point, kept))
    return found


def die_with_parent(signal_number):
    _check(_libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), 'prctl(PR_SET_PDEATHSIG)')


def set_dumpable(value):
    _check(_libc.prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(value), 0, 0, 0), 'prctl(PR_SET_DUMPABLE)')


def become_subreaper():
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0), 'prctl(PR_SET_CHILD_SUBREAPER)')


def forbid_new_privileges():
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0), 'prctl(PR_SET_NO_NEW_PRIVS)')


def limit_capabilities(allowed, bounding=None):
    """Leaves at most `allowed` (a bit mask) in the permitted and effective sets, nothing in the inheritable and
    ambient ones, and at most `bounding` (default: `allowed`) in the bounding set. Cannot be undone."""
    bounding = allowed if bounding is None else bounding
    for capability in range(_HIGHEST_CAPABILITY + 1):
        # Dropping needs a capability itself, so what is gone already is left alone; -1 lies beyond the kernel's last one.
        if not bounding >> capability & 1 and _libc.prctl(_PR_CAPBSET_READ, ctypes.c_ulong(capability), 0, 0, 0) == 1:
            _check(_libc.prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0), 'prctl(PR_CAPBSET_DROP, %d)' % capability)
    _libc.prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(ctypes.byref(header), ctypes.byref(data)), 'capget')
    for word in (0, 1):
        mask = allowed >> (32 * word) & 0xFFFFFFFF
        data[3 * word] &= mask
        data[3 * word + 1] &= mask
        data[3 * word + 2] = 0
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), 'capset')


def permitted_capabilities():
    """Bit mask."""
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(ctypes.byref(header), ctypes.byref(data)), 'capget')
    return data[1] | data[4] << 32
