"""The check against real HTTP servers on loopback."""

import http.server
import json
import threading
import unittest

import handler

HASH = "00" * 32


def serve(answers):
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers.get(self.path, (404, "Block not found"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, "http://127.0.0.1:%d" % server.server_port


def node_at(height, time):
    return {
        "/blocks/tip/height": (200, str(height)),
        "/block-height/%d" % height: (200, HASH),
        "/block/" + HASH: (200, json.dumps({"timestamp": time})),
    }


class Check(unittest.TestCase):
    def serve(self, answers):
        server, url = serve(answers)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return url

    def check(self, node, public=""):
        found = handler.check(node, public, 2, now=10_000)
        found.pop("AnswerSeconds", None)
        return found

    def test_a_node_at_the_tip(self):
        node = self.serve(node_at(100, 9_400))
        public = self.serve({"/blocks/tip/height": (200, "100")})
        self.assertEqual(
            self.check(node, public),
            {"Reachable": 1, "TipHeight": 100, "TipAgeSeconds": 600, "BlocksBehind": 0},
        )

    def test_a_node_behind_and_one_ahead_of_the_public(self):
        public = self.serve({"/blocks/tip/height": (200, "112")})
        self.assertEqual(self.check(self.serve(node_at(100, 1)), public)["BlocksBehind"], 12)
        self.assertEqual(self.check(self.serve(node_at(120, 1)), public)["BlocksBehind"], 0)

    def test_a_node_that_is_down_syncs_or_talks_nonsense_is_not_reachable(self):
        server, url = serve({})
        server.shutdown()
        server.server_close()
        self.assertEqual(self.check(url), {"Reachable": 0})
        for answer in ((503, "not synced"), (200, "x"), (200, "-1"), (200, "9" * 100_000)):
            url = self.serve({"/blocks/tip/height": answer})
            self.assertEqual(self.check(url), {"Reachable": 0}, answer[1][:10])
        broken = node_at(100, 1) | {"/block/" + HASH: (200, "[]")}
        self.assertEqual(self.check(self.serve(broken))["Reachable"], 0)

    def test_an_outage_of_the_public_api_says_nothing_of_our_node(self):
        public = self.serve({"/blocks/tip/height": (500, "")})
        found = self.check(self.serve(node_at(100, 1)), public)
        self.assertEqual(found["Reachable"], 1)
        self.assertNotIn("BlocksBehind", found)


unittest.main()
