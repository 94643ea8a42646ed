"""A webhook on this machine, which keeps what it is sent."""

import base64
import http.server
import json
import threading


class Hook:
    """A server on a free port while it is entered.

    Args:
        code: The HTTP status that it answers with.

    Attributes:
        port: Its port.
        bodies: The JSON objects that it was sent.
        users: USER:PASSWORD of each, or None.
    """

    def __init__(self, code=200):
        self.bodies = bodies = []
        self.users = users = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                kind, _, value = self.headers.get("Authorization", "").partition(" ")
                users.append(base64.b64decode(value).decode() if kind == "Basic" else None)
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(code)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
