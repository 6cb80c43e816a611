import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ExecutorHandle } from '@trainyard/service';
import { until } from '../../support/until.ts';
import { LocalHarness, type Rung, ROOT, visibleScratch } from './local-harness.ts';

const GATEWAY = 'http://10.77.0.1:9400';
const EGRESS = 'http://10.77.0.1:9401';
/** Host programs use the machine's own Python: it is in every host. */
const PYTHON = '/usr/bin/python3';

/** What a job must be able to do, and what not, on a rung with namespaces. */
export function isolationTests(rung: Exclude<Rung, 'processes'>): void {
  describe(`hosts on the rung ${rung}`, () => {
    let harness: LocalHarness;
    let skipped: string | null = null;
    let handle: ExecutorHandle;
    let folder: string;
    let outside: Server;
    let outsidePort: number;

    beforeAll(async () => {
      outside = createServer((request, response) => response.end(`outside ${request.url}`));
      await new Promise<void>((resolve) => outside.listen(0, '127.0.0.1', resolve));
      outsidePort = (outside.address() as AddressInfo).port;
      const made = await LocalHarness.open(rung, {
        dataDir: process.getuid?.() === 0 ? visibleScratch() : tmpdir(),
        egressAllow: [`127.0.0.1:${outsidePort}`],
      });
      if (typeof made === 'string') {
        skipped = made;
        return;
      }
      harness = made;
      folder = mkdtempSync(join(tmpdir(), 'ty-folder-'));
      writeFileSync(join(folder, 'data.txt'), 'registered');
      handle = await harness.submit(harness.plan('isolation', 2, folder));
    });
    afterAll(async () => {
      outside.close();
      if (skipped !== null) return;
      await harness.close();
      rmSync(folder, { recursive: true, force: true });
    });
    const test = (title: string, body: () => Promise<void>): void => {
      it(title, async (context) => {
        if (skipped !== null) return context.skip(skipped);
        await body();
      });
    };
    const inHost = (command: string, env: Record<string, string> = {}, host = 'algo-1') =>
      harness.shell(handle, host).run(command, env);
    /** The service's end of the door while `body` runs. */
    const withService = async <T>(handler: RequestListener, body: () => Promise<T>): Promise<T> => {
      const service = createServer(handler);
      mkdirSync(join(harness.dataDir, 'run'), { recursive: true });
      await new Promise<void>((resolve) =>
        service.listen(join(harness.dataDir, 'run/gateway.sock'), resolve),
      );
      try {
        return await body();
      } finally {
        service.closeAllConnections();
        await new Promise((resolve) => service.close(resolve));
      }
    };
    const python = (program: string, env: Record<string, string> = {}) =>
      inHost(`${PYTHON} - <<'END'\n${program}\nEND`, env);

    test('a host has its name, its address, and finds the others by name', async () => {
      const { output } = await python(
        [
          'import socket',
          'print(socket.gethostname())',
          'print(socket.gethostbyname("algo-1"), socket.gethostbyname("algo-2"))',
          'print(socket.gethostbyaddr("10.77.0.12")[0], socket.getnameinfo(("::ffff:10.77.0.12", 1), 0)[0])',
          's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("192.0.2.1", 9)); print(s.getsockname()[0])',
        ].join('\n'),
      );
      expect(output.split('\n')).toEqual([
        'algo-1',
        '10.77.0.11 10.77.0.12',
        'algo-2 algo-2',
        '10.77.0.11',
        '',
      ]);
    });

    test('hosts exchange bytes over their own network', async () => {
      const listener = await harness
        .shell(handle, 'algo-2')
        .start(
          `${PYTHON} -c 'import socket; s = socket.create_server(("algo-2", 5000)); print("up", flush=True); c, _ = s.accept(); print(c.recv(9).decode(), c.getpeername()[0])'`,
        );
      await until('the listener', () => harness.shell(handle, 'algo-2').output(listener).includes('up'));
      await python('import socket; socket.create_connection(("algo-2", 5000)).sendall(b"from one")');
      expect((await harness.shell(handle, 'algo-2').finish(listener)).output).toBe(
        'up\nfrom one 10.77.0.11\n',
      );
    });

    test('a name that is not of the job fails at once', async () => {
      const { output } = await python(
        'import socket, time\nt = time.monotonic()\ntry: socket.getaddrinfo("example.com", 80)\nexcept socket.gaierror: print("unknown", time.monotonic() - t < 3)',
      );
      expect(output).toBe('unknown True\n');
    });

    test('processes of the host are all that a job sees and signals', async () => {
      const { output } = await inHost(
        'ls -d /proc/[0-9]* | wc -l; tr "\\0" " " < /proc/1/cmdline; kill -9 1; echo; echo alive',
      );
      const [count, first, alive] = output.split('\n');
      expect(Number(count)).toBeLessThan(10);
      expect(first).toContain('gang.py');
      expect(alive).toBe('alive');
    });

    test('the service’s data, other hosts’ files and people’s homes are not there', async () => {
      mkdirSync(join(harness.dataDir, 'secrets'), { recursive: true });
      writeFileSync(join(harness.dataDir, 'secrets', 'key'), 'secret');
      writeFileSync(join(harness.mlDir(handle, 'algo-2'), 'private'), 'other host');
      const { output } = await inHost(
        `ls -A ${harness.dataDir}; ls -A /root /home; ls /opt/ml; cat /etc/shadow`,
      );
      expect(output).not.toContain('secret');
      expect(output).not.toContain('jobs');
      expect(output).not.toContain('private');
      expect(output).not.toMatch(/^root:/m);
      expect(output).not.toMatch(/\.(ssh|aws|bash_history)$/m);
    });

    test('nothing of the machine can be written', async () => {
      const targets = [
        '/',
        '/etc',
        '/usr',
        '/usr/bin',
        '/var',
        '/var/log',
        '/opt',
        '/sys',
        '/proc/sys/kernel',
        ROOT,
        '/home',
        '/etc/hosts',
      ];
      const { output } = await python(
        [
          'import os',
          `for path in ${JSON.stringify(targets)}:`,
          '    target = path if os.path.isfile(path) else path + "/trainyard-was-here"',
          '    try: open(target, "a").close(); print("WROTE", target)',
          '    except OSError: pass',
          'for name in ("core_pattern", "hostname", "modprobe"):',
          '    try: open("/proc/sys/kernel/" + name, "w").write("x"); print("WROTE", name)',
          '    except OSError: pass',
          'print("disks", [name for name in os.listdir("/dev") if name.startswith(("sd", "vd", "nvme", "loop", "dm-", "mem"))])',
        ].join('\n'),
      );
      // A clone below /tmp or a home has its place in a private folder of the host; what counts is the machine.
      const written = [...output.matchAll(/^WROTE (.*)$/gm)].map((match) => match[1]!);
      expect(written.filter((path) => existsSync(path))).toEqual([]);
      expect(output.split('\n').at(-2)).toBe('disks []');
    });

    test('a job has a container’s capabilities and cannot get others', async () => {
      const { output } = await python(
        [
          'import ctypes, os, re',
          'status = open("/proc/self/status").read()',
          'for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"): print(name, re.search(name + r":\\s+(\\S+)", status)[1])',
          'libc = ctypes.CDLL(None, use_errno=True)',
          'print("mount", libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None))',
          'print("remount", libc.mount(None, b"/", None, 0x1020, None))',
          'print("umount", libc.umount2(b"/proc/sys", 2))',
          'print("setns", libc.setns(os.open("/proc/1/ns/mnt", 0) if os.access("/proc/1/ns/mnt", 4) else -1, 0))',
          'try: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)); print("MKNOD")',
          'except OSError: print("mknod refused")',
          'try: open("/proc/1/mem", "rb"); print("MEM")',
          'except OSError: print("init unreadable")',
        ].join('\n'),
      );
      expect(output.split('\n')).toEqual([
        'CapInh 0000000000000000',
        'CapPrm 00000000000405fb',
        'CapEff 00000000000405fb',
        'CapBnd 00000000000405fb',
        'CapAmb 0000000000000000',
        'NoNewPrivs 1',
        'mount -1',
        'remount -1',
        'umount -1',
        'setns -1',
        'mknod refused',
        'init unreadable',
        '',
      ]);
    });

    test('/opt/ml, /tmp, the home and /dev/shm are writable and private to the host', async () => {
      const places = ['/opt/ml/model', '/tmp', '/var/tmp', '$HOME', '/dev/shm', '/run'];
      const command = `mkdir -p /opt/ml/model; for d in ${places.join(' ')}; do echo mine > $d/mark; cat $d/mark; done`;
      expect((await inHost(command)).output).toBe('mine\n'.repeat(places.length));
      const other = await inHost(`cat ${places.map((place) => `${place}/mark`).join(' ')}`, {}, 'algo-2');
      expect(other.output).not.toContain('mine');
      expect(existsSync('/tmp/mark') || existsSync('/dev/shm/mark')).toBe(false);
      expect(readFileSync(join(harness.mlDir(handle, 'algo-1'), 'model/mark'), 'utf8')).toBe('mine\n');
    });

    test('a registered folder is at its channel, read-only', async () => {
      const { output } = await inHost(
        'cat /opt/ml/input/data/train/data.txt; echo; echo x > /opt/ml/input/data/train/new',
      );
      expect(output).toMatch(/^registered\n.*Read-only file system/);
      expect(existsSync(join(folder, 'new'))).toBe(false);
    });

    test('hosts reach the service, also after it was started again', async () => {
      const ask = `import urllib.request; print(urllib.request.urlopen("${GATEWAY}/x", timeout=10).read().decode())`;
      for (const answer of ['first service', 'second service']) {
        const { output } = await withService(
          (_request, response) => response.end(answer),
          () => python(ask),
        );
        expect(output).toBe(`${answer}\n`);
      }
      expect((await python(ask)).exitCode).toBe(1);
    });

    test('a door that was killed is opened again', async () => {
      const gang = harness.gangPid(handle);
      const children = readFileSync(`/proc/${gang}/task/${gang}/children`, 'utf8')
        .trim()
        .split(' ')
        .map(Number);
      // The job root was forked first.
      const door = Math.max(...children);
      process.kill(door, 'SIGKILL');
      const ask = `import urllib.request; print(urllib.request.urlopen("${GATEWAY}/x", timeout=10).read().decode())`;
      await withService(
        (_request, response) => response.end('through a new door'),
        () => until('the new door', async () => (await python(ask)).output === 'through a new door\n'),
      );
    });

    test('large bodies pass the door unchanged in both directions', async () => {
      const digest = async (request: IncomingMessage): Promise<string> => {
        const hash = createHash('sha256');
        for await (const chunk of request) hash.update(chunk as Buffer);
        return hash.digest('hex');
      };
      const body = randomBytes(48 << 20);
      const { output } = await withService(
        (request, response) => {
          if (request.method === 'GET') response.end(body);
          else void digest(request).then((text) => response.end(text));
        },
        () =>
          python(
            [
              'import hashlib, urllib.request',
              `body = urllib.request.urlopen("${GATEWAY}/", timeout=60).read()`,
              'print(hashlib.sha256(body).hexdigest())',
              `print(urllib.request.urlopen("${GATEWAY}/", data=body, timeout=60).read().decode())`,
            ].join('\n'),
          ),
      );
      const expected = createHash('sha256').update(body).digest('hex');
      expect(output).toBe(`${expected}\n${expected}\n`);
    });

    test('the way out leads past the machine itself', async () => {
      const open = (url: string) =>
        python(
          `import urllib.request, urllib.error\ntry: print(urllib.request.urlopen("${url}", timeout=20).read().decode())\nexcept urllib.error.HTTPError as error: print(error.code, error.read().decode())`,
          { http_proxy: EGRESS },
        );
      expect((await open(`http://127.0.0.1:${outsidePort}/allowed`)).output).toBe('outside /allowed\n');
      for (const target of [
        `localhost:${outsidePort}`,
        '127.0.0.1:1',
        '[::1]:1',
        '169.254.169.254',
        '0.0.0.0:1',
      ]) {
        const { output } = await open(`http://${target}/`);
        expect(output).toMatch(/^403 .*a job may not go there/);
      }
    });

    test('a CONNECT tunnel carries bytes both ways', async () => {
      const { output } = await python(
        [
          'import http.client',
          'connection = http.client.HTTPConnection("10.77.0.1", 9401, timeout=20)',
          `connection.set_tunnel("127.0.0.1", ${outsidePort})`,
          'connection.request("GET", "/tunnel"); print(connection.getresponse().read().decode())',
        ].join('\n'),
      );
      expect(output).toBe('outside /tunnel\n');
    });

    test('a packet to the internet itself is answered unreachable at once', async () => {
      const { output } = await python(
        'import socket\ntry: socket.create_connection(("192.0.2.1", 80), timeout=20)\nexcept OSError as error: print(type(error).__name__, error.errno in (101, 113))',
      );
      expect(output).toBe('OSError True\n');
    });

    test('an isolated job reaches the service and has no way out', async () => {
      const isolated = await harness.submit({ ...harness.plan('isolated', 1), networkIsolated: true });
      const { output } = await withService(
        (_request, response) => response.end('service'),
        () =>
          harness
            .shell(isolated, 'algo-1')
            .run(
              `${PYTHON} - <<'END'\n` +
                `import socket, urllib.request\nprint(urllib.request.urlopen("${GATEWAY}/", timeout=10).read().decode())\n` +
                'for target in (("10.77.0.1", 9401), ("1.1.1.1", 53), ("192.0.2.1", 80)):\n' +
                '    try: socket.create_connection(target, timeout=20); print("REACHED", target)\n' +
                '    except OSError as error: print(error.errno)\nEND',
            ),
      );
      expect(output).toMatch(/^service\n\d+\n\d+\n\d+\n$/);
      const bootstrap = JSON.parse(readFileSync(harness.bootstrapPath(isolated, 'algo-1'), 'utf8'));
      expect(bootstrap).toMatchObject({
        egressEnvironment: {},
        isolation: rung,
        hostAddresses: { 'algo-1': '10.77.0.11' },
      });
    });

    test('killing the gang process ends everything at once', async () => {
      const doomed = await harness.submit(harness.plan('doomed', 2));
      await harness.startStubborn(doomed, 'algo-2');
      process.kill(harness.gangPid(doomed), 'SIGKILL');
      await until('nothing left', async () =>
        (await harness.leftovers(doomed)).every((line) => line.startsWith('directory')),
      );
      expect(await harness.executor.observe(doomed)).toMatchObject([{ state: 'gone' }, { state: 'gone' }]);
      await harness.executor.cancel(doomed);
      expect(await harness.leftovers(doomed)).toEqual([]);
    });
  });
}
