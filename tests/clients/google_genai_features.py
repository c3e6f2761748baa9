"""What google-genai can do, through Chaperone: each feature by its synchronous and asynchronous clients."""

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
from checks import BASES, MODEL, check, marker

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


class Caller:
    """A client of either kind, pointed at a base."""

    def __init__(self, client, base):
        self.client = client
        self.base = base

    async def generate(self, contents, config=None):
        return await value(self.client.models.generate_content(model=MODEL, contents=contents, config=config))

    async def stream(self, contents, config=None):
        return await value(self.client.models.generate_content_stream(model=MODEL, contents=contents, config=config))


def simulate(script, **config):
    return types.GenerateContentConfig(http_options=types.HttpOptions(headers={"x-simulate": script}), **config)


def say(text):
    return "say=" + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def text_of(chunks):
    return "".join(chunk.text or "" for chunk in chunks)


async def plain(caller, mark):
    answer = await caller.generate(mark)
    caller.base.check_echo(answer.text, mark)
    caller.base.sent(mark)
    assert answer.usage_metadata.total_token_count > 0


async def streamed(caller, mark):
    prompt = f"{mark} " + "of sea and wind. " * 20
    chunks = await items(caller.stream(prompt))
    caller.base.check_echo(text_of(chunks), prompt)
    caller.base.sent(mark)
    assert len(chunks) > 1 and chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP


async def chat_over_three_turns(caller, _mark):
    chat = caller.client.chats.create(model=MODEL)
    for turn in range(3):
        mark = marker()
        answer = await value(chat.send_message(f"Turn of {mark}"))
        caller.base.check_echo(answer.text, f"Turn of {mark}")
        own = [one for one in caller.base.sent(mark)["contents"] if "Turn of" in json.dumps(one)]
        assert [one["role"] for one in own] == ["user", "model"] * turn + ["user"], "the history is not complete"


async def system_instruction(caller, mark):
    """A template's takes the place of the application's."""
    answer = await caller.generate(mark, types.GenerateContentConfig(system_instruction="Be brief."))
    system = caller.base.system or "Be brief."
    assert answer.text.startswith(f"[system: {system}"), answer.text
    sent = caller.base.sent(mark)["systemInstruction"]["parts"]
    assert len(sent) == 1 and sent[0]["text"].startswith(system), sent


async def json_schema(caller, mark):
    schema = {"type": "OBJECT", "properties": {"town": {"type": "STRING"}}, "required": ["town"]}
    config = simulate(say('{"town": "Ulm"}'), response_mime_type="application/json", response_schema=schema)
    answer = await caller.generate(mark, config)
    assert json.loads(answer.text) == {"town": "Ulm"}, answer.text
    assert caller.base.sent(mark)["generationConfig"]["responseSchema"]["required"] == ["town"]


async def functions(caller, mark):
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
    await caller.generate(contents, types.GenerateContentConfig(tools=[tool]))
    body = caller.base.sent(mark)
    assert body["tools"][0]["functionDeclarations"][0]["name"] == "weather"
    sent_call, sent_result = (turn["parts"][0] for turn in body["contents"][-2:])
    assert sent_call["functionCall"]["args"] == {"town": "Ulm"}, sent_call
    assert base64.urlsafe_b64decode(sent_call["thoughtSignature"]) == b"\x00signed\xff"
    assert sent_result["functionResponse"]["response"] == {"sky": "clear"}, sent_result


async def inline_image(caller, mark):
    image = bytes(range(256)) * 64
    await caller.generate([mark, types.Part.from_bytes(data=image, mime_type="image/png")])
    parts = caller.base.sent(mark)["contents"][-1]["parts"]
    assert base64.urlsafe_b64decode(parts[1]["inlineData"]["data"]) == image


async def embeddings(caller, mark):
    answer = await value(caller.client.models.embed_content(model="gemini-embedding-001", contents=[mark, "two"]))
    assert answer.embeddings and all(one.values for one in answer.embeddings), answer
    assert checks.sent(mark), "the text did not reach the model"


async def count_tokens(caller, mark):
    answer = await value(caller.client.models.count_tokens(model=MODEL, contents=mark))
    caller.base.check_count(answer.total_tokens, mark)
    caller.base.sent(mark)


async def models_list(caller, _mark):
    names = [one.name for one in await items(caller.client.models.list())]
    assert f"models/{MODEL}" in names, names


async def an_error(caller, mark):
    try:
        await caller.generate(mark, simulate("status=503"))
    except errors.ServerError as error:
        assert error.code == 503, error
    else:
        raise AssertionError("a 503 raised nothing")


async def blocked_prompt(caller, mark):
    prompt = f"{mark} {checks.INJECTION}"
    for chunks in ([await caller.generate(prompt)], await items(caller.stream(prompt))):
        reasons = [chunk.prompt_feedback.block_reason for chunk in chunks]
        assert reasons == [types.BlockedReason.PROHIBITED_CONTENT], reasons
        assert not chunks[0].candidates, chunks
    assert checks.sent(mark) is None, "the blocked prompt reached the model"


async def blocked_answer(caller, mark):
    config = simulate(say(checks.BAD_ANSWER))
    answer = await caller.generate(mark, config)
    chunks = await items(caller.stream(mark, config))
    caller.base.sent(mark)
    assert not answer.text, answer.text
    checks.only_good_beginning(text_of(chunks))
    for last in (answer, chunks[-1]):
        assert last.candidates[0].finish_reason == types.FinishReason.SAFETY, last


async def cancelled(caller, mark):
    """A task that is cancelled, or a stream that is closed, is a client that has left."""
    before = checks.left()
    stream = await caller.stream(f"{mark} " + "of sea and wind. " * 40, simulate("gap_ms=50,chunk=4"))
    if hasattr(stream, "__aiter__"):
        await cancel_in(stream)
    else:
        with closing(stream):
            next(stream)
    await asyncio.to_thread(checks.eventually, lambda: checks.left() - before, "the call is not recorded as left")


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


async def large_body(caller, mark):
    answer = await caller.generate(mark + "x" * LARGE_LETTERS)
    caller.base.check_echo(answer.text, mark + "x" * LARGE_LETTERS)


async def uploads(caller, mark):
    """In one piece and in several; and a guardrail reads what is text."""
    files = caller.client.files
    described = {"mime_type": "text/plain", "display_name": mark}
    for length in [10, UPLOADED_BYTES]:
        data = b"a b c d e\n" * (length // 10)
        file = await value(files.upload(file=io.BytesIO(data), config=described))
        assert file.size_bytes == length and file.display_name == mark, file
        digest = base64.b64decode(file.sha256_hash).decode()
        assert digest == hashlib.sha256(data).hexdigest(), digest
    try:
        await value(files.upload(file=io.BytesIO(checks.INJECTION.encode()), config=described))
    except errors.ClientError as error:
        assert error.code == 400 and "the upload was blocked by a guardrail" in str(error), error
    else:
        raise AssertionError("an upload that guardrails block raised nothing")


async def interactions(caller, mark):
    """Created, streamed, read and cancelled; and what a guardrail blocks is an error in their own form."""
    made = caller.client.interactions
    answer = await value(made.create(model=MODEL, input=mark))
    assert answer.status == "completed" and answer.output_text.startswith("Echo: "), answer
    assert mark in answer.output_text, answer.output_text
    caller.base.sent(mark)
    events = await items(made.create(model=MODEL, input="of sea and wind. " * 20, stream=True))
    names = [event.event_type for event in events]
    assert names[0] == "interaction.created" and names[-1] == "interaction.completed", names
    assert names.count("step.delta") > 1, names
    # What was made earlier says nothing of a template.
    assert (await value(made.get(f"i{mark}"))).status == "completed"
    assert (await value(made.cancel(f"i{mark}"))).status == "cancelled"
    other = marker()
    try:
        await value(made.create(model=MODEL, input=f"{other} {checks.INJECTION}"))
    except Exception as error:  # Of a kind that the SDK does not export.
        assert "blocked by a guardrail" in str(error), error
    else:
        raise AssertionError("an interaction that guardrails block raised nothing")
    assert checks.sent(other) is None, "the blocked prompt reached the model"


async def batches(caller, mark):
    """Requests are read; answers are on record, whether they are in the operation or in a file."""

    def requests(text):
        return [types.InlinedRequest(contents=[types.Content(role="user", parts=[types.Part(text=text)])])]

    made = caller.client.batches
    await value(made.create(model=MODEL, src=requests(mark)))
    assert checks.sent(mark), "the requests did not reach the upstream"
    other = marker()
    try:
        await value(made.create(model=MODEL, src=requests(f"{other} {checks.INJECTION}")))
    except errors.ClientError as error:
        assert error.code == 400 and "blocked by a guardrail" in str(error), error
    else:
        raise AssertionError("a batch that guardrails block raised nothing")
    assert checks.sent(other) is None, "the blocked prompt reached the upstream"
    # Its own user, to find what is recorded of it.
    reader = types.HttpOptions(headers={"x-chaperone-user": mark})
    config = types.GetBatchJobConfig(http_options=reader)
    batch = await value(made.get(name=f"batches/b{mark}", config=config))
    assert batch.state == types.JobState.JOB_STATE_SUCCEEDED, batch
    assert len(batch.dest.inlined_responses) == 3, batch.dest
    filed = await value(made.get(name=f"batches/filed{mark}", config=config))
    config = types.DownloadFileConfig(http_options=reader)
    file = await value(caller.client.files.download(file=filed.dest.file_name, config=config))
    lines = file.splitlines()
    assert len(lines) == 3 and "candidates" in json.loads(lines[0])["response"], lines
    all_recorded = lambda: len([one for one in checks.executions(mark) if one["call"] != "batchGenerateContent"]) == 6
    await asyncio.to_thread(checks.eventually, all_recorded, "not all answers are on record")


async def caches(caller, mark):
    config = types.CreateCachedContentConfig(contents=[mark], system_instruction="Be brief.", ttl="300s")
    made = await value(caller.client.caches.create(model=MODEL, config=config))
    assert checks.sent(mark) and made.name, made
    other = marker()
    try:
        config = types.CreateCachedContentConfig(contents=[f"{other} {checks.INJECTION}"])
        await value(caller.client.caches.create(model=MODEL, config=config))
    except errors.ClientError as error:
        assert error.code == 400 and "blocked by a guardrail" in str(error), error
    else:
        raise AssertionError("a cache that guardrails block raised nothing")
    assert checks.sent(other) is None, "the blocked prompt reached the upstream"


async def vertex(caller, mark):
    """By its paths in express mode, which take a key."""
    options = types.HttpOptions(
        base_url=caller.base.url, headers=caller.base.headers, timeout=checks.TIMEOUT_S * 1000
    )
    whole = genai.Client(api_key=checks.API_KEY, vertexai=True, http_options=options)
    client = whole.aio if hasattr(caller.client, "aclose") else whole
    try:
        there = Caller(client, caller.base)
        answer = await there.generate(mark)
        caller.base.check_echo(answer.text, mark)
        caller.base.sent(mark)
        chunks = await items(there.stream(f"{marker()} {checks.INJECTION}"))
        assert chunks[0].prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT, chunks
    finally:
        await whole.aio.aclose()


# What is large comes last, because every look at what was sent reads all that was sent before.
FEATURES = [
    plain,
    streamed,
    chat_over_three_turns,
    system_instruction,
    json_schema,
    functions,
    inline_image,
    embeddings,
    count_tokens,
    models_list,
    an_error,
    blocked_prompt,
    blocked_answer,
    cancelled,
    interactions,
    batches,
    caches,
    vertex,
    large_body,
    uploads,
]


def feature_check(feature, way, place):
    base = BASES[place]

    async def works():
        arguments = {
            name: {key: make() for key, make in made.items()} for name, made in WAYS[way].items()
        }
        options = types.HttpOptions(
            base_url=base.url, headers=base.headers, timeout=checks.TIMEOUT_S * 1000, **arguments
        )
        whole = genai.Client(api_key=checks.API_KEY, vertexai=False, http_options=options)
        try:
            await feature(Caller(whole if way == "sync" else whole.aio, base), marker())
        finally:
            await whole.aio.aclose()

    def runs():
        asyncio.run(works())

    runs.__name__ = "_".join(filter(None, [way, place, feature.__name__]))
    check(runs)


for each_feature in FEATURES:
    for each_way in WAYS:
        for each_place in BASES:
            feature_check(each_feature, each_way, each_place)

checks.run()
