"""`make serve`: run the support desk on 127.0.0.1 and print a first request to try."""

import subprocess
import sys

from server import ROOT, ServerFailed, chosen_ports, command, environment, stop, wait_until_ready

FIRST_REQUEST = """The support desk is ready. The first request to try:

curl -s {url}/v2/pipelines/support-chat/infer -H 'content-type: application/json' -d '{{"inputs": [
  {{"name": "memory_id", "shape": [1], "datatype": "BYTES", "data": ["me"]}},
  {{"name": "role", "shape": [1], "datatype": "BYTES", "data": ["user"]}},
  {{"name": "content", "shape": [1], "datatype": "BYTES", "data": ["What is the status of BUG-771?"]}},
  {{"name": "type", "shape": [1], "datatype": "BYTES", "data": ["text"]}}]}}'

Ctrl-C stops the server. Conversations are kept in {data}.
"""


def main() -> int:
    """Serve until Ctrl-C."""
    data = ROOT / ".data"
    try:
        ports = chosen_ports()
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    url = f"http://127.0.0.1:{ports['MLSERVER_HTTP_PORT']}"
    process = subprocess.Popen(command(ROOT / "models"), env=environment(ports, data), cwd=ROOT)
    try:
        wait_until_ready(process, url, None)
        print(FIRST_REQUEST.format(url=url, data=data), flush=True)
        return process.wait()
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        stop(process)


if __name__ == "__main__":
    sys.exit(main())
