import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Layout } from './layout.ts';

/** The channel in which SDK v3's ModelTrainer sends its own programs. */
const CHANNEL = 'sm_drivers';

/**
 * What AWS's MPI driver takes for `paramiko`, because it lies beside it. AWS's images have ssh between hosts; ours have
 * a remote shell and neither keys nor a daemon. In the driver's process only: the daemon is there, connecting means that
 * the host answers, `ssh` is the remote shell, and the environment goes to no file of the machine. Hosts have their own.
 */
const PARAMIKO = `
import builtins, os, subprocess, types

_RUN = os.path.dirname(os.environ["TRAINYARD_INIT_SOCKET"]) + "/bin/"
_SSHD, _ENVIRONMENT = "/usr/sbin/sshd", "/etc/environment"
_exists, _open, _popen = os.path.exists, builtins.open, subprocess.Popen


class SSHException(Exception):
    pass


class MissingHostKeyPolicy:
    pass


client = types.SimpleNamespace(MissingHostKeyPolicy=MissingHostKeyPolicy)


class SSHClient:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def load_system_host_keys(self):
        pass

    def set_missing_host_key_policy(self, policy):
        pass

    def connect(self, hostname, port=22, **_):
        if subprocess.run([_RUN + "trainyard-rsh", hostname, "true"], capture_output=True).returncode:
            raise SSHException("host %s does not answer" % hostname)


class _Popen(_popen):
    def __init__(self, args, *rest, **named):
        if isinstance(args, list) and args[:1] == ["ssh"]:
            args = [_RUN + "trainyard-rsh", *args[1:]]
        elif isinstance(args, list) and args[:1] == [_SSHD]:
            args = ["true"]
        super().__init__(args, *rest, **named)


subprocess.Popen = _Popen
os.path.exists = lambda path: path == _SSHD or _exists(path)
builtins.open = lambda path, *rest, **named: _open(os.devnull if path == _ENVIRONMENT else path, *rest, **named)
`;

/** Puts it beside the driver, when the job brings that. */
export async function serveDriverSsh(layout: Layout, channels: readonly { name: string }[]): Promise<void> {
  if (!channels.some(({ name }) => name === CHANNEL)) return;
  const path = join(layout.channel(CHANNEL), 'distributed_drivers', 'paramiko.py');
  await writeFile(path, PARAMIKO).catch((error: NodeJS.ErrnoException) => {
    // Drivers of another form need nothing of it.
    if (error.code !== 'ENOENT' && error.code !== 'EROFS') throw error;
  });
}
