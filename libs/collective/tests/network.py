"""Emulated hosts: network namespaces joined by links of a chosen rate.

Needs root and `ip`. Names carry this process's id, and everything is removed
again, so that several test runs can share a machine.
"""

import os
import re
import shutil
import subprocess


def why_impossible():
    """Returns why namespaces cannot be made here, or None."""
    if os.geteuid() != 0:
        return "needs root to make network namespaces"
    if shutil.which("ip") is None:
        return "needs iproute2 (`apt-get install iproute2`)"
    probe = f"ty-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"cannot make a network namespace: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class Network:
    """`hosts` namespaces on one bridge; each link carries `megabits` per second."""

    def __init__(self, hosts, megabits=None):
        self.id = f"{os.getpid() % 100000}{id(self) % 97}"
        self.names = [f"ty{self.id}h{host}" for host in range(hosts)]
        self.hub = f"ty{self.id}hub"
        self.made = []
        try:
            self._add(self.hub)
            self._in(self.hub, "ip link add bridge type bridge")
            self._in(self.hub, "ip link set bridge up")
            for host, name in enumerate(self.names):
                self._add(name)
                self._in(name, f"ip link add eth0 type veth peer name port{host} netns {self.hub}")
                self._in(name, f"ip addr add 10.77.0.{host + 1}/24 dev eth0")
                self._in(name, "ip link set eth0 up")
                self._in(name, "ip link set lo up")
                self._in(self.hub, f"ip link set port{host} master bridge")
                self._in(self.hub, f"ip link set port{host} up")
                if megabits:
                    # Both directions of the host's link.
                    for namespace, device in ((name, "eth0"), (self.hub, f"port{host}")):
                        self._in(
                            namespace,
                            f"tc qdisc add dev {device} root tbf rate {megabits}mbit burst 256kb latency 50ms",
                        )
        except BaseException:
            self.close()
            raise

    def _add(self, name):
        subprocess.run(["ip", "netns", "add", name], check=True)
        self.made.append(name)

    def _in(self, name, command):
        subprocess.run(["ip", "netns", "exec", name, *command.split()], check=True)

    def make_lossy(self, host, megabits):
        """Limits what the host sends, with next to no queue: packets beyond the rate are lost, not delayed."""
        self._in(
            self.names[host], f"tc qdisc add dev eth0 root tbf rate {megabits}mbit burst 70kb limit 75kb"
        )

    def lost_packets(self, host):
        command = ["ip", "netns", "exec", self.names[host], *"tc -s qdisc show dev eth0".split()]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return int(re.search(r"dropped (\d+)", text).group(1))

    def cut(self, host):
        """Takes the host's link down: nothing is answered any more."""
        self._in(self.names[host], "ip link set eth0 down")

    def close(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], check=False)
        self.made = []
