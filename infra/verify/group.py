#!/usr/bin/env python3
"""instance/scripts/tell-group: its decisions, and one run of it against a local metadata
service, a local node and an `aws` that writes down what it is asked."""

import http.server
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "instance/scripts/tell-group"
loader = importlib.machinery.SourceFileLoader("tell_group", str(SCRIPT))
sys.dont_write_bytecode = True
group = importlib.util.module_from_spec(importlib.util.spec_from_loader("tell_group", loader))
loader.exec_module(group)


def run(watch, steps):
    """Actions by time, of (time, service, live, ready, target) in turn."""
    taken = {}
    for now, service, live, ready, target in steps:
        action = watch.wants(now, service, live, ready, target)
        if action:
            taken[now] = action
            watch.did(action, now)
    return taken


def every_ten(start, end, *seen):
    return [(now, *seen, "InService") for now in range(start, end, 10)]


class Decisions(unittest.TestCase):
    def test_a_first_sync_lengthens_the_hook_until_the_node_serves(self):
        steps = every_ten(0, 1500, "active", True, False) + every_ten(1500, 3000, "active", True, True)
        self.assertEqual(run(group.Watch(0), steps), {0: "lengthen", 600: "lengthen", 1200: "lengthen", 1500: "serving"})

    def test_a_node_that_falls_behind_is_not_replaced(self):
        watch = group.Watch(0)
        run(watch, every_ten(0, 20, "active", True, True))
        self.assertEqual(run(watch, every_ten(20, 90_000, "active", True, False)), {})

    def test_a_dead_node_is_given_up_once_after_ten_minutes(self):
        watch = group.Watch(0)
        run(watch, every_ten(0, 110, "active", True, True))
        self.assertEqual(run(watch, every_ten(110, 3000, "activating", False, False)), {700: "unhealthy"})

    def test_a_pause_shorter_than_that_is_forgiven(self):
        watch = group.Watch(0)
        steps = []
        for start in range(0, 6000, 600):
            steps += every_ten(start, start + 10, "active", True, True)
            steps += every_ten(start + 10, start + 600, "activating", False, False)
        self.assertEqual(run(watch, steps), {0: "serving"})

    def test_who_was_stopped_by_hand_is_not_dead_who_was_given_up_by_systemd_is(self):
        watch = group.Watch(0)
        run(watch, every_ten(0, 10, "active", True, True))
        self.assertEqual(run(watch, every_ten(10, 9000, "inactive", False, False)), {})
        self.assertEqual(list(run(watch, every_ten(9000, 12_000, "failed", False, False)).values()), ["unhealthy"])

    def test_a_node_that_never_answers_is_given_up_after_an_hour(self):
        self.assertEqual(run(group.Watch(0), every_ten(0, 9000, "activating", False, False)), {3600: "unhealthy"})

    def test_the_machine_goes_when_the_node_has_drained(self):
        watch = group.Watch(0)
        run(watch, every_ten(0, 10, "active", True, True))
        steps = [(10, "deactivating", True, False, "Terminated"), (20, "inactive", False, False, "Terminated")]
        self.assertEqual(run(watch, steps), {20: "drained"})


class Run(unittest.TestCase):
    def test_it_tells_a_group_that_the_node_serves_and_has_drained(self):
        answers = {
            "/latest/api/token": "token",
            "/latest/meta-data/instance-id": "i-1",
            "/latest/meta-data/autoscaling/target-lifecycle-state": "InService",
            "/health/live": "ok",
        }

        class Answers(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path in answers else 503)
                self.end_headers()
                self.wfile.write(answers.get(self.path, "").encode())

            do_PUT = do_GET

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        here = f"127.0.0.1:{server.server_port}"
        with tempfile.TemporaryDirectory() as work:
            log, state = Path(work, "log"), Path(work, "state")
            state.write_text("active")
            for name, does in (("aws", f'echo "$@" >>{log}'), ("systemctl", f"cat {state}")):
                Path(work, name).write_text(f"#!/bin/sh\n{does}\n")
                Path(work, name).chmod(0o755)
            env = os.environ | {
                "PATH": f"{work}:{os.environ['PATH']}", "SETUP_GROUP": "pulse-test-nodes", "SETUP_WAIT_SECS": "0.05",
                "SETUP_OPS": here, "SETUP_METADATA": f"http://{here}",
            }
            script = subprocess.Popen([str(SCRIPT)], env=env, stdout=subprocess.DEVNULL)
            self.addCleanup(script.kill)

            def wait_for(text):
                deadline = time.monotonic() + 30
                while text not in (log.read_text() if log.exists() else ""):
                    self.assertLess(time.monotonic(), deadline, f"the group is not told: {text}")
                    time.sleep(0.02)

            hook = "--auto-scaling-group-name pulse-test-nodes --instance-id i-1 --lifecycle-hook-name"
            wait_for(f"autoscaling record-lifecycle-action-heartbeat {hook} serving")
            answers["/health"] = "{}"
            wait_for(f"autoscaling complete-lifecycle-action {hook} serving --lifecycle-action-result CONTINUE")
            answers["/latest/meta-data/autoscaling/target-lifecycle-state"] = "Terminated"
            state.write_text("inactive")
            wait_for(f"autoscaling complete-lifecycle-action {hook} drain --lifecycle-action-result CONTINUE")
            self.assertEqual(script.wait(timeout=30), 0)
            self.assertEqual(log.read_text().count("complete-lifecycle-action"), 2)


unittest.main()
