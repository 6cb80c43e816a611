"""Starts the ranks of one library and asks them to measure."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import peers

HERE = Path(__file__).resolve().parent
START_SECONDS = 120


class Library:
    """The ranks of one library, waiting for requests.

    `kind` is what rank.py runs; `mpi` names an environment of peers.py; `variables` are added to the environment.
    """

    def __init__(self, name, kind, ranks, folder, mpi=None, namespaces=None, variables=None):
        self.name = name
        path = str(folder / f"{name}.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(ranks)
        self.processes = []
        self.log = folder / f"{name}.log"
        log = open(self.log, "w")
        environment = dict(os.environ, OMP_NUM_THREADS="1", BENCHMARK_STORE=str(folder / f"{name}.store"))
        environment.update(variables or {})
        program = [str(HERE / "rank.py"), kind, path]
        if mpi:
            place = peers.environment_of(mpi)
            self.version = peers.version_of(place)
            command, additions = peers.command_for(mpi, place, ranks, namespaces, program)
            environment.update(additions, PATH=f"{place}/bin:{environment['PATH']}")
            environment.pop("PYTHONPATH", None)
            self.processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        else:
            import torch

            self.version = f"torch {torch.__version__}" if kind != "sockets" else "plain TCP"
            for rank in range(ranks):
                prefix = ["ip", "netns", "exec", namespaces[rank]] if namespaces else []
                own = {"RANK": str(rank), "WORLD_SIZE": str(ranks)}
                if namespaces and kind == "gloo":
                    own["GLOO_SOCKET_IFNAME"] = "eth0"
                self.processes.append(
                    subprocess.Popen(
                        [*prefix, sys.executable, *program], env={**environment, **own}, stdout=log, stderr=log
                    )
                )
        server.settimeout(START_SECONDS)
        self.streams, self.pids = {}, []
        try:
            for _ in range(ranks):
                stream = server.accept()[0].makefile("rw")
                hello = json.loads(stream.readline())
                self.streams[hello["rank"]] = stream
                self.pids.append(hello["pid"])
        except (TimeoutError, ValueError) as error:
            self.kill()
            raise SystemExit(f"{name} did not start: {self.log.read_text()[-2000:]}") from error
        finally:
            server.close()

    def ask(self, **request):
        """The slowest rank's answer."""
        for stream in self.streams.values():
            stream.write(json.dumps(request) + "\n")
            stream.flush()
        lines = [stream.readline() for stream in self.streams.values()]
        if not all(lines):
            raise SystemExit(f"{self.name} ended during {request}: {self.log.read_text()[-2000:]}")
        return max(json.loads(line) for line in lines)

    def end(self):
        for stream in self.streams.values():
            try:
                stream.write(json.dumps({"do": "end"}) + "\n")
                stream.flush()
            except OSError:
                pass
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                process.terminate()  # mpirun takes its ranks along
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
