"""The processes that init starts: each the leader of its own session, its end kept until someone asks."""

import errno
import os
import signal
import time

# Python ignores these in itself; a program must not inherit that.
_RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


def now_ms():
    return int(time.time() * 1000)


class Spawn:
    """A started process. `exit_code` and `signal` are both None while it runs."""

    def __init__(self, key, pid):
        self.key = key
        self.pid = pid
        self.started_at = now_ms()
        self.ended_at = None
        self.exit_code = None
        self.signal = None

    @property
    def running(self):
        return self.ended_at is None

    def end(self, status):
        self.ended_at = now_ms()
        if os.WIFSIGNALED(status):
            self.signal = os.WTERMSIG(status)
        else:
            self.exit_code = os.WEXITSTATUS(status)

    def result(self):
        return {'exitCode': self.exit_code, 'signal': signal_name(self.signal), 'endedAt': self.ended_at}

    def describe(self):
        return {'id': self.key, 'pid': self.pid, 'running': self.running, 'startedAt': self.started_at, **self.result()}


def signal_name(number):
    if number is None:
        return None
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no member each
        return 'SIG%d' % number


def signal_number(name):
    """@raises ValueError for a name that this machine does not have."""
    text = str(name).upper()
    try:
        return signal.Signals[text if text.startswith('SIG') else 'SIG' + text].value
    except KeyError:
        raise ValueError('signal %r is unknown here; use a name such as TERM' % (name,)) from None


def start(key, argv, env, cwd, files, prepare=None):
    """Starts `argv` with `files` as stdin, stdout and stderr: descriptors, or paths of files to append to.

    @param env bytes or str keys and values; the complete environment.
    @param prepare called in the child before it opens, enters or runs anything that a caller has named.
    @raises OSError when the program, the directory or a file cannot be used.
    """
    report_read, report_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        path = ''
        try:
            os.setsid()
            for number in _RESET:
                signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            if prepare is not None:
                prepare()
            # Out of the way first: a source may have the number of another's target.
            sources = [os.dup(file if isinstance(file, int) else files[0]) for file in files]
            for target, source in enumerate([*sources, report_write]):
                if source != target:
                    os.dup2(source, target)
            report_write = len(files)
            os.set_inheritable(report_write, False)
            # What init has open is not to be reached by a path such as /proc/self/fd/7.
            os.closerange(report_write + 1, 4096)
            for target, file in enumerate(files):
                if not isinstance(file, int):
                    path = file
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), target)
            path = ''
            os.chdir(cwd)
            os.execvpe(argv[0], argv, env)
        except OSError as error:
            os.write(report_write, b'%d %s' % (error.errno, os.fsencode(path)))
        except BaseException:  # noqa: B036 - the copy of init must never run on
            os.write(report_write, b'%d' % errno.EINVAL)
        finally:
            os._exit(127)
    os.close(report_write)
    with os.fdopen(report_read, 'rb') as report:
        failure = report.read()
    if failure:
        os.waitpid(pid, 0)
        number, _, path = os.fsdecode(failure).partition(' ')
        reason = os.strerror(int(number))
        raise OSError(int(number), 'cannot write to %s: %s' % (path, reason) if path else 'cannot start %r: %s (cwd %s)' % (
            os.fsdecode(argv[0]), reason, os.fsdecode(cwd)))
    return Spawn(key, pid)
