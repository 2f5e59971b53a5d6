# A custom handler on Python's own HTTP server.
import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = (call["Data"]["req"].get("Body") or "").split()
        result = {
            "Outputs": {"res": {"statusCode": 200, "headers": {"content-type": "application/json"}, "body": json.dumps({"words": len(words)})}},
            "Logs": [f"counted {len(words)} words"],
        }
        body = json.dumps(result).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])), Handler).serve_forever()
