"""The check against real HTTP servers on loopback."""

import http.server
import json
import threading
import unittest

import handler

HASH = "00" * 32
UP = {"Reachable": 1, "Live": 1, "Ready": 1}
DOWN = {"Reachable": 0, "Live": 0, "Ready": 0}


def serve(answers):
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = answers
            if "X-Slot" in self.headers:
                known = answers.get(self.headers["X-Slot"], {})
            status, body = known.get(self.path, (404, "Block not found"))
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
        "/health/live": (200, "{}"),
        "/health": (200, "{}"),
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
            UP | {"TipHeight": 100, "TipAgeSeconds": 600, "BlocksBehind": 0},
        )

    def test_a_node_behind_and_one_ahead_of_the_public(self):
        public = self.serve({"/blocks/tip/height": (200, "112")})
        self.assertEqual(self.check(self.serve(node_at(100, 1)), public)["BlocksBehind"], 12)
        self.assertEqual(self.check(self.serve(node_at(120, 1)), public)["BlocksBehind"], 0)

    def test_a_node_that_is_down_syncs_or_talks_nonsense_is_not_reachable(self):
        server, url = serve({})
        server.shutdown()
        server.server_close()
        self.assertEqual(self.check(url), DOWN)
        for answer in ((503, "not synced"), (200, "x"), (200, "-1"), (200, "9" * 100_000)):
            url = self.serve({"/blocks/tip/height": answer})
            self.assertEqual(self.check(url), DOWN, answer[1][:10])
        broken = node_at(100, 1) | {"/block/" + HASH: (200, "[]")}
        self.assertEqual(self.check(self.serve(broken))["Reachable"], 0)

    def test_a_node_that_syncs_is_live_and_not_ready(self):
        syncs = {"/health/live": (200, "{}"), "/health": (503, "{}"), "/blocks/tip/height": (503, "")}
        self.assertEqual(self.check(self.serve(syncs)), {"Reachable": 0, "Live": 1, "Ready": 0})

    def test_each_slot_is_asked_besides_what_clients_reach(self):
        public = self.serve({"/blocks/tip/height": (200, "120")})
        both = node_at(120, 1) | {"blue": node_at(120, 1), "green": node_at(100, 1)}
        found = handler.check_all({
            "NODE_NAME": "production", "NODE_URL": self.serve(both), "PUBLIC_URL": public,
            "TIMEOUT_SECS": "2", "SLOTS": "blue green", "SLOT_HEADER": "X-Slot",
        })
        behind = {node: metrics["BlocksBehind"] for node, metrics in found.items()}
        self.assertEqual(behind, {"production": 0, "production-blue": 0, "production-green": 20})

    def test_an_outage_of_the_public_api_says_nothing_of_our_node(self):
        public = self.serve({"/blocks/tip/height": (500, "")})
        found = self.check(self.serve(node_at(100, 1)), public)
        self.assertEqual(found["Reachable"], 1)
        self.assertNotIn("BlocksBehind", found)


unittest.main()
