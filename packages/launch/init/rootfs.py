"""The file system of one host, assembled in its own mount namespace.

A new root on tmpfs gets every top-level entry of the machine, read-only; what must be private is put over it; what a
job must not see is left out. Nothing on the machine is created, changed or remounted, so there is nothing to undo:
when the namespace goes, the mounts go.

Order matters: leave out → machine's entries → private places → hidden places → visible paths → channels. Sources are
paths of the machine, targets are below the new root until `enter` makes it `/`.
"""

import os

import syscalls as sys_
from syscalls import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_REC

# Replaced by private ones. /home and /root hold people's keys; a job's home is its own.
_PRIVATE = ('dev', 'home', 'opt', 'proc', 'root', 'run', 'sys', 'tmp', 'lost+found')

# A user's home may be one of these (services often have `/`); covering it would leave no host.
_NEVER_HIDDEN = {''} | {'/' + name for name in _PRIVATE + ('bin', 'etc', 'lib', 'lib64', 'sbin', 'usr', 'var')}

# Beside the nodes that every program expects: accelerators and their links, by the names of their drivers.
_DEVICES = ('null', 'zero', 'full', 'random', 'urandom', 'tty')
_ACCELERATORS = ('accel', 'dri', 'gdrdrv', 'hl', 'infiniband', 'kfd', 'neuron', 'nvidia')

# As container engines do it: what a root without capabilities could still write, or read, through /proc.
_PROC_READ_ONLY = ('acpi', 'bus', 'fs', 'irq', 'sys', 'sysrq-trigger')
_PROC_MASKED = ('asound', 'kcore', 'keys', 'latency_stats', 'sched_debug', 'scsi', 'timer_list')

# Readable for a root user on the machine, none of a job's business.
_SECRETS = ('/etc/shadow', '/etc/shadow-', '/etc/gshadow', '/etc/gshadow-', '/etc/ssh', '/etc/ssl/private',
            '/etc/sudoers', '/etc/sudoers.d', '/etc/kubernetes', '/etc/rancher', '/etc/docker', '/boot',
            '/var/lib/docker', '/var/lib/containerd', '/var/lib/kubelet', '/var/lib/rancher', '/var/backups',
            '/var/spool/cron', '/var/log')


def enter(plan, host):
    """Builds the root of `host` (a member of the gang plan) and makes it `/` of this process.

    @raises OSError whose text names the mount that failed.
    """
    sys_.mount(None, '/', None, MS_REC | sys_.MS_PRIVATE)
    root = host['directory'] + '/root'
    sys_.mount('tmpfs', root, 'tmpfs', MS_NOSUID | MS_NODEV, 'mode=0755')
    _machine_entries(root)
    _opt(root, host)
    _devices(root)
    _kernel_views(root)
    _private_places(root, host)
    covers = [_hide(root, path) for path in list(plan['hiddenPaths']) + list(_SECRETS)
              if path.rstrip('/') not in _NEVER_HIDDEN]
    for path in _with_interpreters(plan['visiblePaths']):
        _show(root, path)
    _run_directory(root, plan, host)
    for channel in host['mounts']:
        target = _make_place(root, channel['target'], True)
        sys_.mount(channel['source'], target, None, MS_BIND | MS_REC)
        sys_.restrict_mount(target, MS_NOSUID | MS_NODEV | (MS_RDONLY if channel['readOnly'] else 0))
    for name in ('hosts', 'resolv.conf'):
        _bind(plan['directory'] + '/etc/' + name, _make_place(root, '/etc/' + name, False), True)
    for cover in [cover for cover in covers if cover] + [root]:
        sys_.mount(None, cover, None, sys_.MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(root)
    sys_.pivot_root('.', '.')
    sys_.unmount('.', sys_.MNT_DETACH)
    os.chdir('/')


def _bind(source, target, read_only, flags=MS_NOSUID | MS_NODEV):
    sys_.mount(source, target, None, MS_BIND | MS_REC)
    sys_.restrict_mount(target, flags | (MS_RDONLY if read_only else 0))


def _copy_entry(source, target):
    """A directory or file of the machine appears read-only at `target`, a symbolic link is made again."""
    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.mkdir(target)
    elif os.path.isfile(source):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    else:
        return
    _bind(source, target, True)


def _machine_entries(root):
    for entry in os.listdir('/'):
        if entry not in _PRIVATE:
            _copy_entry('/' + entry, root + '/' + entry)
    for entry in _PRIVATE:
        os.mkdir(root + '/' + entry, 0o755)


def _opt(root, host):
    if os.path.isdir('/opt'):
        for entry in os.listdir('/opt'):
            if entry != 'ml':
                _copy_entry('/opt/' + entry, root + '/opt/' + entry)
    os.mkdir(root + '/opt/ml')
    _bind(host['directory'] + '/ml', root + '/opt/ml', False)


def _devices(root):
    dev = root + '/dev'
    sys_.mount('tmpfs', dev, 'tmpfs', MS_NOSUID | MS_NOEXEC, 'mode=0755,size=1m')
    names = [name for name in os.listdir('/dev') if name in _DEVICES or name.startswith(_ACCELERATORS)]
    for name in names:
        target = dev + '/' + name
        if os.path.isdir('/dev/' + name):
            os.mkdir(target)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
        _bind('/dev/' + name, target, False, MS_NOSUID)
    for name, target in (('fd', '/proc/self/fd'), ('stdin', '/proc/self/fd/0'), ('stdout', '/proc/self/fd/1'),
                         ('stderr', '/proc/self/fd/2'), ('ptmx', 'pts/ptmx')):
        os.symlink(target, dev + '/' + name)
    os.mkdir(dev + '/pts')
    sys_.mount('devpts', dev + '/pts', 'devpts', MS_NOSUID | MS_NOEXEC, 'newinstance,ptmxmode=0666,mode=0620')
    os.mkdir(dev + '/shm')
    sys_.mount('tmpfs', dev + '/shm', 'tmpfs', MS_NOSUID | MS_NODEV, 'mode=1777')


def _kernel_views(root):
    proc = root + '/proc'
    sys_.mount('proc', proc, 'proc', MS_NOSUID | MS_NODEV | MS_NOEXEC)
    for name in _PROC_READ_ONLY:
        if os.path.exists(proc + '/' + name):
            _bind(proc + '/' + name, proc + '/' + name, True)
    for name in _PROC_MASKED:
        _hide(root, '/proc/' + name)
    try:
        # The interfaces below /sys/class/net are those of the namespace that mounts it.
        sys_.mount('sysfs', root + '/sys', 'sysfs', MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
        if os.path.isdir('/sys/fs/cgroup'):
            _bind('/sys/fs/cgroup', root + '/sys/fs/cgroup', True)
    except PermissionError:  # inside a container whose own /sys is masked
        _bind('/sys', root + '/sys', True)


def _private_places(root, host):
    tmp, home = host['directory'] + '/tmp', host['directory'] + '/home'
    _bind(tmp, root + '/tmp', False)
    _bind(home, root + '/root', False)
    if os.path.isdir(root + '/var/tmp'):
        _bind(host['directory'] + '/vartmp', root + '/var/tmp', False)
    sys_.mount('tmpfs', root + '/run', 'tmpfs', MS_NOSUID | MS_NODEV, 'mode=0755')
    os.mkdir(root + '/run/lock')
    os.chmod(root + '/run/lock', 0o1777)
    if os.path.isdir(root + '/var/run') and not os.path.islink(root + '/var/run'):
        _bind(root + '/run', root + '/var/run', False)


def _run_directory(root, plan, host):
    run = root + '/run/trainyard'
    os.mkdir(run)
    _bind(host['runDir'], run, False)
    _bind(plan['peersDir'], run + '/peers', True)
    if plan['forkDir']:
        _bind(plan['forkDir'], run + '/fork', True)


def _hide(root, path):
    """Covers `path`; returns the cover when it is a directory, writable until visible paths have places in it."""
    target = _resolve(root, path)
    if os.path.isdir(target):
        sys_.mount('tmpfs', target, 'tmpfs', MS_NOSUID | MS_NODEV, 'size=1m,mode=0555')
        return target
    if os.path.lexists(target):
        _bind('/dev/null', target, True, MS_NOSUID)
    return None


def _show(root, path):
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise FileNotFoundError(2, '%s (needed as %s) does not exist or cannot be read as uid %d' % (real, path, os.getuid()))
    if not _same(real, root + real):
        target = _make_place(root, real, os.path.isdir(real))
        _bind(real, target, True)
    if real != path and not os.path.lexists(_resolve(root, path)):
        os.symlink(real, _make_place(root, os.path.dirname(path), True) + '/' + os.path.basename(path))


def _with_interpreters(paths):
    """`paths` and, for each virtual environment among them, the installation that its interpreter belongs to."""
    result = []
    for path in paths:
        result.append(path)
        try:
            with open(path + '/pyvenv.cfg', encoding='utf-8') as settings:
                for line in settings:
                    key, _, value = line.partition('=')
                    if key.strip() == 'home':
                        result.append(os.path.dirname(value.strip()))
        except (FileNotFoundError, NotADirectoryError):
            pass
        interpreter = os.path.realpath(path + '/bin/python')
        if os.path.isfile(interpreter) and not interpreter.startswith(path + '/'):
            result.append(os.path.dirname(os.path.dirname(interpreter)))
    return [path for path in dict.fromkeys(result) if path not in ('/', '/usr')]


def _same(left, right):
    try:
        return os.path.samestat(os.stat(left), os.stat(right))
    except OSError:
        return False


def _resolve(root, path):
    """Where `path` lies below `root` when symbolic links are followed inside the new root."""
    for _ in range(40):
        place = root
        parts = [part for part in path.split('/') if part]
        for index, part in enumerate(parts):
            place += '/' + part
            if os.path.islink(place):
                link = os.readlink(place)
                base = '/' if link.startswith('/') else place[len(root):].rsplit('/', 1)[0] + '/'
                path = os.path.normpath('/'.join([base + link] + parts[index + 1:]))
                break
        else:
            return place
    raise OSError(40, 'too many symbolic links: %s' % path)


def _make_place(root, path, directory):
    """A mount point for `path` in the new root, made when missing. Parents are made on a private file system only:
    what the machine has is mounted already, so a missing parent lies in a hidden or private place."""
    place = _resolve(root, path)
    if directory:
        os.makedirs(place, exist_ok=True)
    elif not os.path.exists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    return place
