"""Rules of the init that need no host: `python3 -m unittest discover -s packages/launch/init/tests`."""

import contextlib
import io
import os
import socket
import sys
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import egress
import frames
import rsh
import start_up


class FramesTest(unittest.TestCase):
    def test_a_message_arrives_whole_however_it_is_cut(self):
        message = frames.pack([b'a', b'', b'two words\n'])
        incoming = frames.Incoming()
        for index in range(len(message)):
            self.assertIsNone(incoming.fields)
            incoming.feed(message[index:index + 1])
        self.assertEqual(incoming.fields, [b'a', b'', b'two words\n'])

    def test_a_length_that_is_no_number_or_too_large_is_refused(self):
        for head in (b'x\n', b'-1\n', b'99999999\n', b'123456789012', b'\n'):
            with self.assertRaises(ValueError, msg=head):
                frames.Incoming().feed(head)

    def test_an_environment_keeps_values_with_equal_signs(self):
        self.assertEqual(frames.split_environment([b'A=1=2', b'B=', b'C']), {b'A': b'1=2', b'B': b''})


class RemoteShellTest(unittest.TestCase):
    def test_the_command_line_is_that_of_ssh(self):
        for arguments, expected in (
            (['algo-2', 'orted', '-mca', 'x'], ('algo-2', 'orted -mca x')),
            (['-x', '-p', '22', '-oBatchMode=yes', '-l', 'root', 'algo-2', 'true'], ('algo-2', 'true')),
            (['-qTp22', 'user@algo-2', 'echo', '-n'], ('algo-2', 'echo -n')),
            (['-tti', 'key', '--', 'algo-2', 'a', 'b'], ('algo-2', 'a b')),
        ):
            self.assertEqual(rsh.parse(arguments), expected)

    def test_a_command_is_required(self):
        for arguments in ([], ['algo-2'], ['-p', '22', 'algo-2']):
            with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(SystemExit) as end:
                rsh.parse(arguments)
            self.assertEqual(end.exception.code, 255)


class StartUpTest(unittest.TestCase):
    def test_a_command_line_of_python_is_understood_or_left_to_python(self):
        self.assertEqual(start_up.parse([b'x.py', b'-u', b'-m']), (False, b'script', 0))
        self.assertEqual(start_up.parse([b'-u', b'-m', b'pkg', b'a']), (True, b'module', 2))
        self.assertEqual(start_up.parse([b'-c', b'pass', b'-u']), (False, b'command', 1))
        for arguments in ([], [b'-'], [b'-O', b'x.py'], [b'-uO', b'x.py'], [b'-W', b'error', b'x.py'], [b'-m'], [b'-V']):
            self.assertIsInstance(start_up.parse(arguments), str, msg=arguments)

    def test_variables_that_are_read_at_start_ask_for_a_fresh_interpreter(self):
        plain = {b'LANG': b'C.UTF-8', b'PATH': b'/bin'}
        for handled in ({}, {b'PYTHONPATH': b'/a'}, {b'OMP_NUM_THREADS': b'2'}, {b'PYTHONUNBUFFERED': b'1'}, {b'PYTHON_EXEC': b'x'},
                        {b'NCCL_DEBUG': b'INFO'}, {b'TORCH_NCCL_ASYNC_ERROR_HANDLING': b'1'}, {b'TORCHELASTIC_RUN_ID': b'1'},
                        {b'PYTHONHASHSEED': b''}, {b'LC_ALL': b'C.UTF-8', b'LANG': b'C'}):
            self.assertIsNone(start_up.cold_reason({**plain, **handled}), msg=handled)
        for read in ({b'PYTHONHASHSEED': b'0'}, {b'PYTHONWARNINGS': b'error'}, {b'LD_PRELOAD': b'x.so'}, {b'MKL_NUM_THREADS': b'1'},
                     {b'TORCH_SHOW_CPP_STACKTRACES': b'1'}, {b'OMP_NUM_THREADS': b'0'}, {b'OMP_PROC_BIND': b'true'}, {b'LANG': b''},
                     {b'LC_ALL': b'en_US.UTF-8'}, {b'GLIBC_TUNABLES': b'x'}):
            self.assertIsNotNone(start_up.cold_reason({**plain, **read}), msg=read)


class EgressPolicyTest(unittest.TestCase):
    def refused(self, host, port=80, policy=None):
        with self.assertRaises(egress.Refused) as refusal:
            (policy or egress.Policy([], {})).addresses(host, port)
        return refusal.exception.status

    def test_the_machine_itself_is_refused_in_every_spelling(self):
        for host in ('127.0.0.1', '127.1', '2130706433', '0.0.0.0', '::1', '::ffff:127.0.0.1', 'localhost', '169.254.169.254',
                     'fe80::1', '224.0.0.1', '::'):
            self.assertEqual(self.refused(host), 403, msg=host)

    def test_other_networks_are_open_private_ones_too(self):
        for host in ('192.0.2.77', '10.1.2.3', '2001:db8::1'):
            self.assertEqual({entry[4][0] for entry in egress.Policy([], {}).addresses(host, 443)}, {host})

    def test_an_exception_holds_for_its_port_only(self):
        policy = egress.Policy(['127.0.0.1:8080'], {})
        self.assertTrue(policy.addresses('127.0.0.1', 8080))
        self.assertEqual(self.refused('127.0.0.1', 8081, policy), 403)

    def test_the_proxy_of_the_machine_is_used_except_for_its_exceptions(self):
        policy = egress.Policy([], {'HTTPS_PROXY': 'http://user:secret@proxy.example:3128', 'NO_PROXY': 'internal.example,.corp'})
        self.assertEqual(policy.proxy_for('https', 'pypi.org').hostname, 'proxy.example')
        self.assertIsNone(policy.proxy_for('http', 'pypi.org'))
        for host in ('internal.example', 'a.internal.example', 'git.corp'):
            self.assertIsNone(policy.proxy_for('https', host))

    def test_a_proxy_on_this_machine_is_not_a_way_back_to_it(self):
        policy = egress.Policy([], {'HTTP_PROXY': 'http://127.0.0.1:3128'})
        for host in ('localhost', 'a.localhost', '127.0.0.1', socket.gethostname()):
            with self.assertRaises(egress.Refused):
                policy.check_name(host, 80, policy.proxy_for('http', 'pypi.org'))


class EgressProxyTest(unittest.TestCase):
    """The proxy between a client socket and a real server."""

    class Server(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers['Content-Length']))
            hops = [name for name in ('Proxy-Authorization', 'Proxy-Connection') if name in self.headers]
            answer = b'%s %s %s %s' % (self.path.encode(), body, self.headers['Connection'].encode(), repr(hops).encode())
            self.send_response(200)
            self.send_header('Content-Length', str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    def setUp(self):
        self.server = ThreadingHTTPServer(('127.0.0.1', 0), self.Server)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.policy = egress.Policy(['127.0.0.1:%d' % self.port], {})

    def tearDown(self):
        self.server.shutdown()
        self.server.server_close()

    def exchange(self, request):
        client, inner = socket.socketpair()
        with client, inner:
            worker = threading.Thread(target=egress.serve, args=(inner, self.policy))
            worker.start()
            client.sendall(request)
            client.shutdown(socket.SHUT_WR)
            worker.join(30)
            inner.close()
            answer = b''
            while data := client.recv(65536):
                answer += data
            return answer

    def test_a_plain_request_goes_on_without_what_is_meant_for_the_proxy(self):
        answer = self.exchange(b'POST http://127.0.0.1:%d/a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nProxy-Authorization: s\r\n'
                               b'Proxy-Connection: keep-alive\r\n\r\nbody' % self.port)
        self.assertTrue(answer.endswith(b'\r\n\r\n/a?b=c body close []'), answer)

    def test_a_tunnel_passes_bytes_sent_with_its_head(self):
        answer = self.exchange(b'CONNECT 127.0.0.1:%d HTTP/1.1\r\n\r\nPOST / HTTP/1.0\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi' % self.port)
        self.assertTrue(answer.startswith(b'HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.0 200'), answer)
        self.assertTrue(answer.endswith(b'/ hi close []'), answer)

    def test_bad_requests_are_answered(self):
        for request, status in ((b'nonsense\r\n\r\n', 400), (b'GET /local HTTP/1.1\r\n\r\n', 400), (b'CONNECT nohost HTTP/1.1\r\n\r\n', 400),
                                (b'CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n', 403), (b'GET http://[::1]/ HTTP/1.1\r\n\r\n', 403),
                                (b'GET / HTTP/1.1\r\nX: ' + b'x' * 70000, 431)):
            self.assertTrue(self.exchange(request).startswith(b'HTTP/1.1 %d ' % status), msg=request[:60])


if __name__ == '__main__':
    unittest.main()
