"""nginx with nchan, the peer of fan-out over WebSockets; as Debian's libnginx-mod-nchan has it.

One worker, messages in memory, nothing logged. Published by POSTs, which may be pipelined;
subscribed by WebSockets. Messages are kept long enough that none is lost to a reader who is late.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

from bench.machine import pinned
from bench.peers import Server, free_port

__all__ = ["Nchan", "post"]

_HOST = "127.0.0.1"
_PROGRAMS = ("nginx", "/usr/sbin/nginx")
_MODULES = (
    Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    Path("/usr/share/nginx/modules/ngx_nchan_module.so"),
)
_START_S = 10
_POLL_S = 0.01
_CONFIGURATION = """\
load_module {module};
daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {directory}/pid;
error_log {directory}/error.log crit;
events {{ worker_connections {files}; use epoll; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    tcp_nodelay on;
    nchan_shared_memory_size 256M;
    server {{
        listen {host}:{port} backlog=4096;
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id bench;
            nchan_message_buffer_length {kept};
            nchan_message_timeout 10m;
        }}
        location = /subscribe {{
            nchan_subscriber websocket;
            nchan_channel_id bench;
            nchan_subscriber_first_message newest;
            nchan_subscriber_timeout 0;
            nchan_websocket_ping_interval 0;
        }}
    }}
}}
"""
_FILES = 15_000
_KEPT = 1_000  # messages; more than are ever under way


class Nchan(Server):
    """One nginx process."""

    @staticmethod
    def version() -> str | None:
        """The version of the nginx installed; None without it or without nchan."""
        program = _program()
        if program is None or _module() is None:
            return None
        done = subprocess.run([program, "-v"], capture_output=True, text=True)
        found = re.search(r"nginx/(\S+)", done.stderr)
        return found[1] if found else done.stderr.strip()

    def start(self) -> None:
        program = _program()
        if program is None:
            raise RuntimeError("no nginx here")
        self._directory.mkdir(parents=True, exist_ok=True)
        self.address = (_HOST, free_port())
        config = self._directory / "nginx.conf"
        config.write_text(
            _CONFIGURATION.format(
                module=_module(),
                directory=self._directory,
                host=_HOST,
                port=self.address[1],
                files=_FILES,
                kept=_KEPT,
            ),
            "ascii",
        )
        errors = self._directory / "stderr"
        with errors.open("wb") as stderr, pinned(self._core):
            self._process = subprocess.Popen(
                [program, "-p", str(self._directory), "-c", str(config)], stderr=stderr
            )
        deadline = time.perf_counter() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                self.stop()
                raise RuntimeError(f"nginx did not start:\n{errors.read_text('utf-8')}")
            time.sleep(_POLL_S)

    def _answers(self) -> bool:
        try:
            socket.create_connection(self.address, timeout=_START_S).close()
        except ConnectionError:
            return False
        return True


def post(data: bytes) -> bytes:
    """Publishes one message."""
    head = f"POST /publish HTTP/1.1\r\nHost: {_HOST}\r\nContent-Length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _program() -> str | None:
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


def _module() -> Path | None:
    return next((path for path in _MODULES if path.exists()), None)
