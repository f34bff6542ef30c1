"""What is refused, in one line of JSON, and what frees a place."""

import http.client
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.extras.serve.conftest import JSON, serving

ENDLESS = {"text": "the", "max_new_tokens": 1_000_000, "temperature": 0}


@pytest.mark.parametrize(
    ("verb", "body", "status", "message"),
    [
        ("generate", {"text": "the cat " * 20}, 422, "tokens, the context 24: shorten it"),
        ("generate", {"max_new_tokens": 1_000_001}, 422, "max_new_tokens is 1000001: here it may be 1000000 at most"),
        ("generate", {"max_new_tokens": 0}, 422, "max_new_tokens: Input should be greater than or equal to 1"),
        ("generate", {"temperature": -1}, 422, "temperature:"),
        ("generate", b'{"temperature": NaN}', 422, "temperature: Input should be a finite number"),
        ("generate", {"top_p": 0}, 422, "top_p:"),
        ("generate", {"text": 5}, 422, "text: Input should be a valid string"),
        ("generate", {"prompt": "the"}, 422, "prompt: Extra inputs are not permitted"),
        ("generate", b'{"text": "\\ud800"}', 422, "half a character"),
        ("generate", [1, 2], 422, "valid dictionary"),
        ("generate", b"", 422, "Field required"),
        ("generate", b'{"text": "the', 422, "the request is not JSON: "),
        ("generate", b"\x00\xff\xfe", 400, "the request is no JSON that can be read"),
        ("generate", b"[" * 4000, 400, "the request is no JSON that can be read"),
        ("generate", b" " * 5000, 413, "the request has 5,000 bytes: 4,096 are the most"),
        ("translate", {"text": ""}, 422, "text: String should have at least 1 character"),
        ("translate", {"text": "a\n" * 20}, 422, "the text has 21 lines: send 16 at most"),
        ("translate", {"text": "a\n" + "the cat " * 20}, 422, "line 2 is 2?.. tokens, the network has 24 positions"),
        ("translate", {"text": "a", "beam": 17}, 422, "beam:"),
        ("fill-mask", {"text": "the cat"}, 422, r"has no \[MASK\]"),
        ("fill-mask", {"text": "[MASK] " * 40}, 422, "the text has 42 tokens, the network 24 positions"),
        ("classify", {"text": " \n"}, 422, "the text is empty"),
        ("classify", {"text": "the " * 60}, 422, "longer than the 24 positions"),
        ("classify", {"text": "the", "second_text": "cat"}, 422, "single texts: leave second_text out"),
        ("dance", {"text": "the"}, 404, "there is no /api/dance here"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(shared, verb, body, status, message):
    answer = shared.send(f"/api/{verb}", body)
    (line,) = json.loads(answer.read()).values()
    assert answer.status == status, line
    assert re.search(message, line), line
    assert "\n" not in line


def test_control_characters_and_html_are_text_like_any_other(shared):
    for text in ("\x00\x1b[31m\u202e", "<script>alert(1)</script>"[:20], "a\r\nb"):
        assert shared.ask("generate", text=text, max_new_tokens=2)["status"] == 200
        assert shared.ask("classify", text=f"the {text}")["status"] == 200


def test_a_body_that_does_not_say_its_size_is_refused_too(shared):
    connection = http.client.HTTPConnection("127.0.0.1", shared.port)
    connection.request("POST", "/api/generate", (b" " * 1000 for _ in range(10)), JSON, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 411
    assert "send Content-Length" in json.loads(answer.read())["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:80"}, 403),
        ({"Host": "user@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "[::"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 200),  # as through a tunnel of ssh
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_no_page_of_another_site_can_ask(shared, headers, status):
    answer = shared.send("/api/classify", {"text": "the"}, {**JSON, **headers})
    assert answer.status == status
    assert ("error" in json.loads(answer.read())) == (status != 200)
    assert not [name for name, _ in answer.getheaders() if name.lower().startswith("access-control")]
    if status == 403 and "Host" in headers:
        assert shared.send("/", None, headers).status == 403


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_place(services, stream):
    with serving(services, max_requests=1) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        connection.request("POST", "/api/generate", json.dumps({**ENDLESS, "stream": stream}), JSON)
        while (refused := server.ask("classify", text="the"))["status"] == 200:  # until the first has come in
            pass
        assert (refused["status"], refused["error"]) == (429, "1 requests are being answered or wait: try again later")
        connection.sock.close() if not stream else connection.close()
        deadline = time.monotonic() + 10
        while server.ask("classify", text="the")["status"] != 200:
            assert time.monotonic() < deadline


def test_what_takes_too_long_ends(services):
    with serving(services, seconds=0.5) as server:
        answer = server.ask("generate", **ENDLESS)
        assert (answer["status"], answer["error"]) == (504, "the answer took too long: ask for less")
        *pieces, (last, error) = server.events(**ENDLESS)
        assert pieces
        assert (last, error) == ("error", {"error": "the answer took too long: ask for less"})
        assert server.ask("classify", text="the")["status"] == 200


def test_what_is_not_complete_when_the_server_is_stopped_ends_with_an_error(services, monkeypatch):
    monkeypatch.setattr("src.extras.serve.server.GRACE", 0.3)
    with ThreadPoolExecutor(1) as other:
        with serving(services) as server:
            events = server.events(**ENDLESS)
            next(events)
            whole = other.submit(server.ask, "generate", **ENDLESS)  # waits behind it
            time.sleep(0.5)
        *_, (last, error) = events
        assert (last, error) == ("error", {"error": "the server was stopped before the answer was complete"})
        assert whole.result(10) == {"status": 503, **error}
