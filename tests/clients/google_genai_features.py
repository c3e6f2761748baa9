"""What google-genai can do beyond text, through Chaperone: each feature by its synchronous and asynchronous clients."""

import asyncio
import base64
import hashlib
import inspect
import io
import json
from contextlib import closing

import httpx2
from google import genai
from google.genai import errors, types

import checks
from checks import CHAPERONE, MODEL, USER, check, marker

LARGE_LETTERS = 4_000_000
# More than the SDKs send at once.
UPLOADED_BYTES = 20_000_000
# Asynchronous clients use aiohttp where it is installed, unless they are given a transport of httpx or its successor.
WAYS = {"sync": {}, "aiohttp": {}, "httpx": {"async_client_args": {"transport": httpx2.AsyncHTTPTransport}}}


async def value(made):
    """What a call gives, in either kind of client."""
    return await made if inspect.isawaitable(made) else made


async def items(made):
    """All that a stream or a list of either kind of client gives."""
    made = await value(made)
    return [item async for item in made] if hasattr(made, "__aiter__") else list(made)


def simulate(script, **config):
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers={"x-simulate": script}), **config)


def say(text):
    return "say=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


async def system_instruction(client, mark):
    config = types.GenerateContentConfig(system_instruction="Be brief.")
    answer = await value(client.models.generate_content(model=MODEL, contents=mark, config=config))
    assert answer.text.startswith("[system: Be brief."), answer.text
    assert checks.sent(mark)["body"]["systemInstruction"]["parts"][0]["text"] == "Be brief."


async def json_schema(client, mark):
    schema = {"type": "OBJECT", "properties": {"town": {"type": "STRING"}}, "required": ["town"]}
    config = simulate(say('{"town": "Ulm"}'), response_mime_type="application/json", response_schema=schema)
    answer = await value(client.models.generate_content(model=MODEL, contents=mark, config=config))
    assert json.loads(answer.text) == {"town": "Ulm"}, answer.text
    assert checks.sent(mark)["body"]["generationConfig"]["responseSchema"]["required"] == ["town"]


async def functions(client, mark):
    """A turn with a call and its result: both reach the model, and the signature of the call unchanged."""
    call = types.Part(
        function_call=types.FunctionCall(name="weather", args={"town": "Ulm"}), thought_signature=b"\x00signed\xff"
    )
    result = types.Part.from_function_response(name="weather", response={"sky": "clear"})
    contents = [
        types.Content(role="user", parts=[types.Part(text=mark)]),
        types.Content(role="model", parts=[call]),
        types.Content(role="user", parts=[result]),
    ]
    tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="weather", description="The sky now.")])
    config = types.GenerateContentConfig(tools=[tool])
    await value(client.models.generate_content(model=MODEL, contents=contents, config=config))
    body = checks.sent(mark)["body"]
    assert body["tools"][0]["functionDeclarations"][0]["name"] == "weather"
    sent_call, sent_result = (turn["parts"][0] for turn in body["contents"][1:])
    assert sent_call["functionCall"]["args"] == {"town": "Ulm"}, sent_call
    assert base64.urlsafe_b64decode(sent_call["thoughtSignature"]) == b"\x00signed\xff"
    assert sent_result["functionResponse"]["response"] == {"sky": "clear"}, sent_result


async def inline_image(client, mark):
    image = bytes(range(256)) * 64
    contents = [mark, types.Part.from_bytes(data=image, mime_type="image/png")]
    await value(client.models.generate_content(model=MODEL, contents=contents))
    parts = checks.sent(mark)["body"]["contents"][0]["parts"]
    assert base64.urlsafe_b64decode(parts[1]["inlineData"]["data"]) == image


async def embeddings(client, mark):
    answer = await value(client.models.embed_content(model="gemini-embedding-001", contents=[mark, "two"]))
    assert answer.embeddings and all(one.values for one in answer.embeddings), answer


async def count_tokens(client, mark):
    answer = await value(client.models.count_tokens(model=MODEL, contents=mark))
    assert answer.total_tokens > 0


async def models_list(client, _mark):
    names = [one.name for one in await items(client.models.list())]
    assert f"models/{MODEL}" in names, names


async def an_error(client, mark):
    try:
        await value(client.models.generate_content(model=MODEL, contents=mark, config=simulate("status=503")))
    except errors.ServerError as error:
        assert error.code == 503, error
    else:
        raise AssertionError("a 503 raised nothing")


async def streamed(client, mark):
    prompt = f"{mark} " + "of sea and wind. " * 20
    chunks = await items(client.models.generate_content_stream(model=MODEL, contents=prompt))
    assert "".join(chunk.text or "" for chunk in chunks) == f"Echo: {prompt}"
    assert len(chunks) > 1 and chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP


async def cancelled(client, mark):
    """A task that is cancelled, or a stream that is closed, is a client that has left."""
    before = left()
    prompt = f"{mark} " + "of sea and wind. " * 40
    slow = simulate("gap_ms=50,chunk=4")
    stream = await value(client.models.generate_content_stream(model=MODEL, contents=prompt, config=slow))
    if hasattr(stream, "__aiter__"):
        await cancel_in(stream)
    else:
        with closing(stream):
            next(stream)
    await asyncio.to_thread(checks.eventually, lambda: left() > before, "the call is not recorded as left")


async def cancel_in(stream):
    begun = asyncio.Event()

    async def reads():
        async for _ in stream:
            begun.set()

    task = asyncio.create_task(reads())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled(), "the stream ended before it was cancelled"


def left():
    return sum(item["outcome"] == "client_left" for item in checks.executions(USER))


async def large_body(client, mark):
    answer = await value(client.models.generate_content(model=MODEL, contents=mark + "x" * LARGE_LETTERS))
    assert len(answer.text) > LARGE_LETTERS, f"{len(answer.text)} letters came back"


async def uploads(client, mark):
    """In one piece and in several; and a guardrail reads what is text."""
    described = {"mime_type": "text/plain", "display_name": mark}
    for length in [10, UPLOADED_BYTES]:
        data = b"a b c d e\n" * (length // 10)
        file = await value(client.files.upload(file=io.BytesIO(data), config=described))
        assert file.size_bytes == length and file.display_name == mark, file
        digest = base64.b64decode(file.sha256_hash).decode()
        assert digest == hashlib.sha256(data).hexdigest(), digest
    try:
        await value(client.files.upload(file=io.BytesIO(checks.INJECTION.encode()), config=described))
    except errors.ClientError as error:
        assert error.code == 400 and "the upload was blocked by a guardrail" in str(error), error
    else:
        raise AssertionError("an upload that guardrails block raised nothing")


FEATURES = [
    system_instruction,
    json_schema,
    functions,
    inline_image,
    embeddings,
    count_tokens,
    models_list,
    an_error,
    streamed,
    cancelled,
    large_body,
    uploads,
]


def feature_check(way, feature):
    async def works():
        arguments = {
            name: {key: make() for key, make in made.items()} for name, made in WAYS[way].items()
        }
        options = types.HttpOptions(
            base_url=CHAPERONE, headers={"x-chaperone-user": USER}, timeout=checks.TIMEOUT_S * 1000, **arguments
        )
        whole = genai.Client(api_key=checks.API_KEY, vertexai=False, http_options=options)
        await feature(whole if way == "sync" else whole.aio, marker())
        if way != "sync":
            await whole.aio.aclose()

    def runs():
        asyncio.run(works())

    runs.__name__ = f"{way}_{feature.__name__}"
    check(runs)


for each_way in WAYS:
    for each_feature in FEATURES:
        feature_check(each_way, each_feature)

checks.run()
