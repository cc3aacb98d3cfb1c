"""The OpenAI-compatible test server."""

import socket
import subprocess
import sys

import httpx2
from click.testing import CliRunner
from openai import OpenAI

from mlserver_chat.testing import OpenAIServer, Reply
from mlserver_chat.testing.__main__ import main


def test_the_official_client_can_talk_to_it():
    with OpenAIServer() as server, OpenAI(base_url=server.base_url, api_key="any") as client:
        messages = [{"role": "user", "content": "hello there"}]
        answer = client.chat.completions.create(model="m", messages=messages)
        assert answer.choices[0].message.content == "You said: hello there"
        assert answer.usage.total_tokens > 0
        chunks = client.chat.completions.create(model="m", messages=messages, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "You said: hello there"
        assert [model.id for model in client.models.list()] == ["scripted"]


def test_scripted_replies_are_used_once_and_requests_are_kept():
    with OpenAIServer() as server:
        server.script(Reply(text="first"), Reply(status=503, headers={"retry-after": "9"}))
        answers = [httpx2.post(f"{server.base_url}/chat/completions", json={"n": n}) for n in range(3)]
        assert [answer.status_code for answer in answers] == [200, 503, 200]
        assert answers[0].json()["choices"][0]["message"]["content"] == "first"
        assert answers[1].headers["retry-after"] == "9"
        assert [received.json["n"] for received in server.received] == [0, 1, 2]
        server.reset()
        assert server.received == []


def test_the_command_prints_its_url_and_serves_until_interrupted():
    command = [sys.executable, "-m", "mlserver_chat.testing"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            base_url = process.stdout.readline().strip()
            body = {"messages": [{"role": "user", "content": "hi"}]}
            answer = httpx2.post(f"{base_url}/chat/completions", json=body, timeout=10)
            assert answer.json()["choices"][0]["message"]["content"] == "You said: hi"
        finally:
            process.terminate()


def test_the_command_reports_a_port_in_use_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["--port", port])
    assert result.exit_code == 1
    assert result.output == f"Error: port {port} can't be used: Address already in use\n"
