#!/usr/bin/env python3
"""A local AWS endpoint (moto's server) whose SSM has one machine: what is sent to it is run,
and answered for with its output and its end. moto itself runs nothing and calls it a success.

    local_machine.py PORT INSTANCE COMMAND...     with COMMAND reading the script to run
"""

import subprocess
import sys
import threading

from moto.core.exceptions import JsonRESTError
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from moto.ssm.models import Command

PORT, INSTANCE, COMMAND = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
known = Command.invocation_response


def invocation_response(command, instance, plugin):
    if instance != INSTANCE:
        raise JsonRESTError("InvalidInstanceId", f"{instance} is not connected")
    script = "\n".join(command.parameters["commands"])
    done = subprocess.run(COMMAND, input=script, capture_output=True, text=True)
    status = "Success" if done.returncode == 0 else "Failed"
    return known(command, instance, plugin) | {
        "ResponseCode": done.returncode, "Status": status, "StatusDetails": status,
        "StandardOutputContent": done.stdout, "StandardErrorContent": done.stderr,
    }


Command.invocation_response = invocation_response
ThreadedMotoServer("127.0.0.1", PORT).start()
threading.Event().wait()
