"""Models of one server find and call one another, with and without worker processes (pinned MLServer 1.7.1)."""

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest
from mlserver.registry import MultiModelRegistry

from mlserver_chat.calls.siblings import find_server
from support import Server, outputs, start_mlserver, text

CODE = """
from mlserver_chat import Runtime, SiblingSettings, bind_llm, request_on_behalf, NotReachable, request_headers
from mlserver_chat.tensors import text_output, text_input, text_elements

class Caller(Runtime):
    settings_class = SiblingSettings

    async def load(self):
        self.llm = await bind_llm(self.config, self.settings, self.registry)
        return True

    async def handle(self, request):
        answer = await self.llm.infer(request_on_behalf(request, [text_input("x", ["hello"])]))
        return self.response(answer.outputs)

class Callee(Runtime):
    settings_class = SiblingSettings

    async def handle(self, request):
        word = text_elements(request.inputs[0])[0]
        if word == "busy":
            raise NotReachable("the example is busy")
        if word == "bug":
            raise RuntimeError("sk-planted")
        headers = request_headers(request)
        seen = [headers.get(name, "") for name in ("x-request-id", "x-tenant")]
        return self.response([text_output("answer", [word, *seen])])
"""
FILES = {"caller/models_of_test.py": CODE, "callee/models_of_test.py": CODE, "remote/models_of_test.py": CODE}


def settings(kind: str, **extra: object) -> dict[str, object]:
    return {"implementation": f"models_of_test.{kind}", "parameters": {"extra": extra}}


@pytest.fixture(scope="module", params=[0, 1], ids=["one process", "a worker process"])
def server(request: pytest.FixtureRequest, mlserver: Callable[..., Server]) -> Iterator[Server]:
    models = {"caller": settings("Caller", llm="callee"), "callee": settings("Callee")}
    yield mlserver(models, workers=request.param, files=FILES)


def test_a_model_calls_its_sibling_with_the_request_id_and_x_headers(server: Server) -> None:
    headers = {"x-request-id": "r1", "x-tenant": "t", "authorization": "secret"}
    assert outputs(server.infer("caller", [text("x", "y")], headers=headers))["answer"] == ["hello", "r1", "t"]


def test_a_request_id_in_a_header_need_not_be_ascii(server: Server) -> None:
    headers = {b"x-request-id": "Zoë".encode("latin-1")}
    assert outputs(server.infer("caller", [text("x", "y")], headers=headers))["answer"] == ["hello", "Zoë", ""]


def test_errors_keep_status_and_sentence_and_bugs_hide_their_text(server: Server) -> None:
    busy, bug = server.infer("callee", [text("x", "busy")]), server.infer("callee", [text("x", "bug")])
    assert busy.status_code == 503 and busy.json()["error"].endswith("not reachable: the example is busy")
    assert bug.status_code == 500 and bug.json()["error"].endswith("internal error: the server log has the details")
    assert "sk-planted" not in server.log.read_text(encoding="utf-8")


def test_a_model_is_called_on_another_server(server: Server, mlserver: Callable[..., Server]) -> None:
    for uri in (f"{server.url}/v2/models/callee/infer", server.url):
        models = {"remote": settings("Caller", llm_uri=uri, llm="callee")}
        remote = mlserver(models, files={"remote/models_of_test.py": CODE})
        assert outputs(remote.infer("remote", [text("x", "y")], headers={"x-request-id": "r2"}))["answer"][1] == "r2"


def test_a_sibling_that_the_repository_lacks_is_an_error_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp = tmp_path_factory.mktemp("lacking")
    folder = tmp / "models" / "caller"
    folder.mkdir(parents=True)
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "caller", **settings("Caller", llm="nobody")}), encoding="utf-8"
    )
    (folder / "models_of_test.py").write_text(CODE, encoding="utf-8")
    server = start_mlserver(tmp / "models", tmp, {"MLSERVER_PARALLEL_WORKERS": "0"}, wait=False)
    server.process.wait(30)
    assert "model 'caller' calls 'nobody', which its model repository lacks" in server.log.read_text(encoding="utf-8")


def test_a_server_that_is_down_is_not_reachable(mlserver: Callable[..., Server]) -> None:
    uri = "http://127.0.0.1:9/v2/models/callee/infer"
    remote = mlserver({"remote": settings("Caller", llm_uri=uri)}, files=FILES)
    answer: httpx2.Response = remote.infer("remote", [text("x", "y")])
    assert answer.status_code == 503 and "not reachable" in answer.json()["error"]


def test_a_registry_without_a_server_finds_none() -> None:
    assert find_server(None) is None and find_server(MultiModelRegistry()) is None
