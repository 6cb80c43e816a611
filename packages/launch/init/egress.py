"""A job's way to the internet: an HTTP proxy (CONNECT, and plain http:// requests), so that the machine needs no address
translation, forwarding or firewall rule.

Policy: a job may reach whatever the machine reaches, but not the machine itself. Loopback, link-local (cloud metadata),
unspecified and multicast addresses and every address of the machine's own interfaces are refused, after names are resolved, and
the connection goes to the very address that was checked. Other private networks stay open, since mirrors of package
indexes and object stores live there. `egressAllow` of the executor's settings (host:port, exact) makes exceptions.

Where the machine itself sits behind a proxy (HTTP_PROXY, HTTPS_PROXY, NO_PROXY in the service's environment), requests go on to it.
"""

import base64
import ipaddress
import socket
from urllib.parse import unquote, urlsplit

import relay

_HEAD_LIMIT_BYTES = 64 << 10
_CONNECT_TIMEOUT_S = 20.0
_IDLE_HEAD_TIMEOUT_S = 60.0
_HOP_HEADERS = (b'proxy-connection', b'proxy-authorization', b'connection', b'keep-alive')


class Refused(Exception):
    """`status` is the HTTP status that the job's client gets, with the text as its body."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class Policy:
    """Where connections may go and through what.

    @param allow `host:port` entries that are reachable whatever their address is
    @param environment the service's own proxy variables are read from it
    """

    def __init__(self, allow, environment):
        self._allow = {entry.lower() for entry in allow}
        self._proxies = {}
        for scheme in ('http', 'https'):
            url = environment.get(scheme + '_proxy') or environment.get(scheme.upper() + '_PROXY')
            if url:
                self._proxies[scheme] = urlsplit(url if '://' in url else 'http://' + url)
        exceptions = environment.get('no_proxy') or environment.get('NO_PROXY') or ''
        self._direct = [entry.strip().lower().lstrip('.') for entry in exceptions.split(',') if entry.strip()]

    def proxy_for(self, scheme, host):
        """The machine's own proxy, or None for a direct connection."""
        name = host.lower()
        for entry in self._direct:
            if entry == '*' or name == entry or name.endswith('.' + entry):
                return None
        return self._proxies.get(scheme)

    def addresses(self, host, port):
        """Checked socket addresses of `host`. @raises Refused."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Refused(502, 'cannot resolve %s: %s' % (host, error.strerror)) from error
        if '%s:%d' % (host.lower(), port) in self._allow:
            return found
        for entry in found:
            self._check(host, entry[4][0].split('%')[0])
        return found

    def check_name(self, host, port, proxy):
        """For names that the machine's own proxy resolves. A name is looked up here too when that proxy runs on this machine: what
        is loopback for it is loopback for us. @raises Refused."""
        if '%s:%d' % (host.lower(), port) in self._allow:
            return
        if host.lower().rstrip('.') in ('localhost', socket.gethostname().lower()) or host.lower().endswith('.localhost'):
            raise Refused(403, '%s is the machine that runs the job' % host)
        try:
            self._check(host, str(ipaddress.ip_address(host)))
        except ValueError:
            if _is_here(proxy.hostname):
                self.addresses(host, port)

    def _check(self, host, text):
        address = ipaddress.ip_address(text)
        address = getattr(address, 'ipv4_mapped', None) or address
        if (address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
                or _is_own(address)):
            raise Refused(403, '%s (%s) is the machine that runs the job or link-local; a job may not go there. '
                               'An operator can allow it by egressAllow: ["%s:PORT"]' % (host, address, host))


def _is_own(address):
    """Only an address of this machine can be bound."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
        return True
    except OSError:
        return False


def _is_here(host):
    try:
        found = {entry[4][0].split('%')[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return any(_is_own(ipaddress.ip_address(text)) for text in found)


def serve(inner, policy):
    """One proxied connection; plain requests are closed after their answer, so each is checked."""
    try:
        inner.settimeout(_IDLE_HEAD_TIMEOUT_S)
        head, rest = _read_head(inner)
        if head is None:
            return
        lines = head.split(b'\r\n')
        try:
            method, target, version = lines[0].split(b' ')
        except ValueError:
            raise Refused(400, 'not an HTTP request line: %r' % lines[0][:80]) from None
        if method == b'CONNECT':
            outer, rest_out = _tunnel(target.decode('latin-1'), policy)
            inner.sendall(b'HTTP/1.1 200 Connection established\r\n\r\n' + rest_out)
        else:
            outer = _forward(method, target.decode('latin-1'), version, lines[1:], policy)
        with outer:
            if rest:
                outer.sendall(rest)
            inner.settimeout(None)
            outer.settimeout(None)
            relay.join(inner, outer)
    except Refused as refused:
        body = ('%s\n' % refused).encode()
        inner.sendall(b'HTTP/1.1 %d Refused\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s'
                      % (refused.status, len(body), body))


def _read_head(sock):
    data = b''
    while b'\r\n\r\n' not in data:
        if len(data) > _HEAD_LIMIT_BYTES:
            raise Refused(431, 'request head is larger than %d bytes' % _HEAD_LIMIT_BYTES)
        more = sock.recv(16384)
        if not more:
            return None, b''
        data += more
    head, _, rest = data.partition(b'\r\n\r\n')
    return head, rest


def _split(authority, default):
    parts = urlsplit('//' + authority)
    try:
        host, port = parts.hostname, parts.port or default
    except ValueError as error:
        raise Refused(400, 'target %r: %s' % (authority, error)) from error
    if not host or not port:
        raise Refused(400, 'target %r is not host:port' % authority)
    return host, port


def _connect(addresses, what):
    problem = None
    for family, kind, protocol, _, address in addresses:
        outer = socket.socket(family, kind, protocol)
        try:
            outer.settimeout(_CONNECT_TIMEOUT_S)
            outer.connect(address)
            return outer
        except OSError as error:
            outer.close()
            problem = error
    raise Refused(502, 'cannot connect to %s: %s' % (what, problem))


def _to_proxy(proxy):
    """The operator named it, so it is not subject to the policy."""
    host, port = proxy.hostname, proxy.port or 8080
    try:
        return _connect(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM), 'the proxy %s:%d' % (host, port))
    except OSError as error:
        raise Refused(502, 'cannot resolve the proxy %s: %s' % (host, error)) from error


def _credentials(proxy):
    if proxy.username is None:
        return b''
    pair = '%s:%s' % (unquote(proxy.username), unquote(proxy.password or ''))
    return b'Proxy-Authorization: Basic ' + base64.b64encode(pair.encode()) + b'\r\n'


def _tunnel(authority, policy):
    host, port = _split(authority, None)
    proxy = policy.proxy_for('https', host)
    if proxy is None:
        return _connect(policy.addresses(host, port), authority), b''
    policy.check_name(host, port, proxy)
    outer = _to_proxy(proxy)
    outer.sendall(b'CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n' % (authority.encode(), authority.encode(), _credentials(proxy)))
    head, rest = _read_head(outer)
    if head is None or not head.split(b'\r\n')[0].split(b' ')[1:2] == [b'200']:
        outer.close()
        raise Refused(502, "the machine's proxy answered %r" % (head or b'nothing').split(b'\r\n')[0].decode('latin-1'))
    return outer, rest


def _forward(method, target, version, headers, policy):
    parts = urlsplit(target)
    if parts.scheme != 'http' or not parts.netloc:
        raise Refused(400, 'expected an http:// address or CONNECT, got %r' % target[:200])
    host, port = _split(parts.netloc.rpartition('@')[2], 80)
    proxy = policy.proxy_for('http', host)
    if proxy is None:
        outer = _connect(policy.addresses(host, port), '%s:%d' % (host, port))
        path = (parts.path or '/') + ('?' + parts.query if parts.query else '')
        extra = b''
    else:
        policy.check_name(host, port, proxy)
        outer, path, extra = _to_proxy(proxy), target, _credentials(proxy)
    kept = [line for line in headers if line.partition(b':')[0].strip().lower() not in _HOP_HEADERS]
    head = b'%s %s %s\r\n' % (method, path.encode('latin-1'), version)
    outer.sendall(head + b''.join(line + b'\r\n' for line in kept) + extra + b'Connection: close\r\n\r\n')
    return outer
