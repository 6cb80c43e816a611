"""A job's network through rtnetlink: the few requests we need, so that no `ip` program has to be installed.

Layouts: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h. All run in the network namespace of the caller.
"""

import os
import socket
import struct

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_NLMSG_ERROR = 2
_IFF_UP = 0x1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID = 1, 3, 10, 18, 19
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_GATEWAY = 5
_RT_TABLE_MAIN, _RTPROT_STATIC, _RT_SCOPE_UNIVERSE, _RTN_UNICAST = 254, 4, 0, 1


def _attribute(kind, payload):
    data = struct.pack('=HH', 4 + len(payload), kind) + payload
    return data + b'\0' * (-len(data) % 4)


def _name(text):
    return _attribute(_IFLA_IFNAME, text.encode() + b'\0')


def _link_header(index=0, flags=0, change=0):
    return struct.pack('=BxHiII', socket.AF_UNSPEC, 0, index, flags, change)


def _request(what, kind, payload, flags=0):
    message = struct.pack('=IHHII', 16 + len(payload), kind, _NLM_F_REQUEST | _NLM_F_ACK | flags, 1, 0) + payload
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.bind((0, 0))
        netlink.send(message)
        answer = netlink.recv(65536)
    answer_kind = struct.unpack_from('=IH', answer)[1]
    number = -struct.unpack_from('=i', answer, 16)[0] if answer_kind == _NLMSG_ERROR else 0
    if number:
        raise OSError(number, '%s: %s' % (what, os.strerror(number)))


def add_bridge(name):
    info = _attribute(_IFLA_LINKINFO, _attribute(_IFLA_INFO_KIND, b'bridge'))
    _request('add bridge ' + name, _RTM_NEWLINK, _link_header() + _name(name) + info, _NLM_F_CREATE | _NLM_F_EXCL)


def add_cable(name, bridge, peer_name, peer_pid):
    """One end stays here, plugged into `bridge` and up; the other appears as `peer_name` in the network namespace of `peer_pid`."""
    peer = _link_header() + _name(peer_name) + _attribute(_IFLA_NET_NS_PID, struct.pack('=I', peer_pid))
    info = _attribute(_IFLA_INFO_KIND, b'veth') + _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
    payload = _link_header(0, _IFF_UP, _IFF_UP) + _name(name)
    payload += _attribute(_IFLA_MASTER, struct.pack('=I', socket.if_nametoindex(bridge)))
    payload += _attribute(_IFLA_LINKINFO, info)
    _request('add veth ' + name, _RTM_NEWLINK, payload, _NLM_F_CREATE | _NLM_F_EXCL)


def set_up(name):
    _request('set %s up' % name, _RTM_NEWLINK, _link_header(socket.if_nametoindex(name), _IFF_UP, _IFF_UP))


def add_address(name, address, prefix_length):
    packed = socket.inet_aton(address)
    header = struct.pack('=BBBBi', socket.AF_INET, prefix_length, 0, 0, socket.if_nametoindex(name))
    payload = header + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
    _request('add %s to %s' % (address, name), _RTM_NEWADDR, payload, _NLM_F_CREATE | _NLM_F_EXCL)


def add_default_route(gateway):
    header = struct.pack('=BBBBBBBBI', socket.AF_INET, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC,
                         _RT_SCOPE_UNIVERSE, _RTN_UNICAST, 0)
    payload = header + _attribute(_RTA_GATEWAY, socket.inet_aton(gateway))
    _request('add route via ' + gateway, _RTM_NEWROUTE, payload, _NLM_F_CREATE | _NLM_F_EXCL)
