"""What openai, LangChain, litellm and google-generativeai can do, through Chaperone: each feature at both bases."""

import asyncio
import base64
import json
import os
import warnings

# Of packages about one another; and the table of models that would be fetched.
warnings.filterwarnings("ignore")
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import google.generativeai as retired
import litellm
import openai
from google.api_core import exceptions as google_errors
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from litellm.utils import get_valid_models

import checks
from checks import BASES, INJECTION, MODEL, SAY_BAD_ANSWER, check, marker

LARGE_LETTERS = 4_000_000
EMBEDDINGS = "gemini-embedding-001"
IMAGE = base64.b64encode(bytes(range(256)) * 64).decode()
IMAGE_URL = f"data:image/png;base64,{IMAGE}"
PARAMETERS = {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}
FUNCTION = {"name": "weather", "description": "The sky now.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
CALLED = {"x-simulate": "call=weather"}
JSON_ANSWER = {"x-simulate": "say=" + base64.urlsafe_b64encode(b'{"town": "Ulm"}').decode().rstrip("=")}
FAILED = {"x-simulate": "status=503"}
SLOW = {"x-simulate": "gap_ms=50,chunk=4"}


class Openai:
    """Messages and tools of OpenAI's own form."""

    errors = openai.APIStatusError

    def __init__(self, base):
        self.base = base
        self.client = openai.OpenAI(
            api_key=checks.API_KEY,
            base_url=f"{base.url}/v1beta/openai/",
            default_headers=base.headers,
            timeout=checks.TIMEOUT_S,
            max_retries=0,
        )

    def complete(self, messages, headers=None, **more):
        return self.client.chat.completions.create(model=MODEL, messages=messages, extra_headers=headers, **more)

    def ask(self, turns, headers=None, **more):
        return self.complete(turns, headers, **more).choices[0].message.content

    def finish(self, turns, headers=None):
        choice = self.complete(turns, headers).choices[0]
        return choice.message.content, choice.finish_reason

    def stream(self, turns, headers=None):
        with self.complete(turns, headers, stream=True) as chunks:
            yield from (chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

    def call(self, turns):
        call = self.complete(turns, CALLED, tools=[TOOL]).choices[0].message.tool_calls[0]
        return call.function.name, json.loads(call.function.arguments)

    def structured(self, turns):
        schema = {"name": "place", "schema": PARAMETERS}
        form = {"type": "json_schema", "json_schema": schema}
        return json.loads(self.ask(turns, JSON_ANSWER, response_format=form))

    def embed(self, texts):
        answer = self.client.embeddings.create(model=EMBEDDINGS, input=texts)
        return [one.embedding for one in answer.data]

    def models(self):
        return [one.id for one in self.client.models.list()]


class Litellm(Openai):
    """The same form, which it translates to the native one."""

    def __init__(self, base):
        self.base = base
        self.place = {"api_key": checks.API_KEY, "api_base": f"{base.url}/v1beta"}

    def complete(self, messages, headers=None, **more):
        return litellm.completion(
            model=f"gemini/{MODEL}",
            messages=messages,
            extra_headers={**self.base.headers, **(headers or {})},
            timeout=checks.TIMEOUT_S,
            num_retries=0,
            **self.place,
            **more,
        )

    def stream(self, turns, headers=None):
        for chunk in self.complete(turns, headers, stream=True):
            yield chunk.choices[0].delta.content or ""

    def embed(self, texts):
        headers = self.base.headers
        answer = litellm.embedding(model=f"gemini/{EMBEDDINGS}", input=texts, extra_headers=headers, **self.place)
        return [one["embedding"] for one in answer.data]

    def models(self):
        return get_valid_models(check_provider_endpoint=True, custom_llm_provider="gemini", **self.place)

    def count(self, text):
        """Without an answer it would guess."""
        counted = asyncio.run(litellm.acount_tokens(model=f"gemini/{MODEL}", messages=[user(text)], **self.place))
        assert counted.original_response, counted
        return counted.total_tokens


class LangChain:
    """Messages of its own, over google-genai."""

    errors = Exception
    kinds = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}

    def __init__(self, base):
        self.base = base

    def model(self, headers=None, **more):
        return ChatGoogleGenerativeAI(
            model=MODEL,
            google_api_key=checks.API_KEY,
            base_url=self.base.url,
            additional_headers={**self.base.headers, **(headers or {})},
            timeout=checks.TIMEOUT_S,
            max_retries=1,
            **more,
        )

    def messages(self, turns):
        for turn in turns:
            if turn["role"] == "tool":
                yield ToolMessage(content=turn["content"], tool_call_id=turn["tool_call_id"], name="weather")
            elif calls := turn.get("tool_calls"):
                function = calls[0]["function"]
                args = json.loads(function["arguments"])
                yield AIMessage(content="", tool_calls=[{"name": function["name"], "args": args, "id": calls[0]["id"]}])
            else:
                yield self.kinds[turn["role"]](content=turn["content"])

    def ask(self, turns, headers=None):
        return self.model(headers).invoke(list(self.messages(turns))).text

    def finish(self, turns, headers=None):
        answer = self.model(headers).invoke(list(self.messages(turns)))
        filtered = answer.response_metadata.get("finish_reason") in ("SAFETY", "PROHIBITED_CONTENT")
        blocked = (answer.response_metadata.get("prompt_feedback") or {}).get("block_reason")
        return answer.text, "content_filter" if filtered or blocked else answer.response_metadata

    def stream(self, turns, headers=None):
        return (chunk.text for chunk in self.model(headers).stream(list(self.messages(turns))))

    def call(self, turns):
        answer = self.model(CALLED).bind_tools([FUNCTION]).invoke(list(self.messages(turns)))
        return answer.tool_calls[0]["name"], answer.tool_calls[0]["args"]

    def structured(self, turns):
        schema = {"title": "place", **PARAMETERS}
        return self.model(JSON_ANSWER).with_structured_output(schema, method="json_schema").invoke(
            list(self.messages(turns))
        )

    def embed(self, texts):
        return GoogleGenerativeAIEmbeddings(
            model=EMBEDDINGS,
            google_api_key=checks.API_KEY,
            base_url=self.base.url,
            additional_headers=self.base.headers,
        ).embed_documents(texts)

    def count(self, text):
        return self.model().get_num_tokens(text)


class Retired:
    """google-generativeai: its headers are given once for the whole process."""

    errors = google_errors.GoogleAPIError

    def __init__(self, base):
        self.base = base

    def configure(self, headers=None):
        retired.configure(
            api_key=checks.API_KEY,
            transport="rest",
            client_options={"api_endpoint": self.base.url},
            default_metadata=list({**self.base.headers, **(headers or {})}.items()),
        )

    def model(self, headers=None, **more):
        self.configure(headers)
        return retired.GenerativeModel(MODEL, **more)

    def contents(self, turns):
        for turn in turns:
            role = {"user": "user", "assistant": "model", "tool": "user"}[turn["role"]]
            if turn["role"] == "tool":
                answer = {"name": "weather", "response": json.loads(turn["content"])}
                yield {"role": role, "parts": [{"function_response": answer}]}
            elif calls := turn.get("tool_calls"):
                function = calls[0]["function"]
                call = {"name": function["name"], "args": json.loads(function["arguments"])}
                yield {"role": role, "parts": [{"function_call": call}]}
            elif isinstance(turn["content"], str):
                yield {"role": role, "parts": [turn["content"]]}
            else:
                image = {"mime_type": "image/png", "data": base64.b64decode(IMAGE)}
                yield {"role": role, "parts": [turn["content"][0]["text"], image]}

    def generate(self, turns, headers=None, stream=False, **more):
        system = [turn["content"] for turn in turns if turn["role"] == "system"]
        model = self.model(headers, system_instruction=system[0] if system else None)
        contents = list(self.contents([turn for turn in turns if turn["role"] != "system"]))
        return model.generate_content(contents, stream=stream, request_options=OPTIONS, **more)

    def ask(self, turns, headers=None):
        """What follows earlier turns is said in a chat."""
        if len(turns) == 1 or turns[0]["role"] == "system":
            return self.generate(turns, headers).text
        *earlier, last = self.contents(turns)
        return self.model(headers).start_chat(history=earlier).send_message(last, request_options=OPTIONS).text

    def finish(self, turns, headers=None):
        answer = self.generate(turns, headers)
        if answer.prompt_feedback.block_reason or answer.candidates[0].finish_reason.name == "SAFETY":
            return "", "content_filter"
        return answer.text, "stop"

    def stream(self, turns, headers=None):
        return (chunk.text for chunk in self.generate(turns, headers, stream=True))

    def call(self, turns):
        part = self.generate(turns, CALLED, tools=[{"function_declarations": [FUNCTION_OF_GOOGLE]}]).parts[0]
        return part.function_call.name, dict(part.function_call.args)

    def structured(self, turns):
        config = {"response_mime_type": "application/json", "response_schema": FUNCTION_OF_GOOGLE["parameters"]}
        return json.loads(self.generate(turns, JSON_ANSWER, generation_config=config).text)

    def embed(self, texts):
        self.configure()
        return retired.embed_content(model=f"models/{EMBEDDINGS}", content=texts)["embedding"]

    def models(self):
        self.configure()
        return [one.name for one in retired.list_models()]

    def count(self, text):
        return self.model().count_tokens(text).total_tokens


OPTIONS = {"timeout": checks.TIMEOUT_S, "retry": None}
FUNCTION_OF_GOOGLE = {
    **FUNCTION,
    "parameters": {"type": "OBJECT", "properties": {"town": {"type": "STRING"}}, "required": ["town"]},
}


def user(text):
    return {"role": "user", "content": text}


def turns_of(body):
    """In either dialect."""
    return body.get("contents") or body["messages"]


def plain(client):
    mark = marker()
    client.base.check_echo(client.ask([user(mark)]), mark)
    client.base.sent(mark)


def streamed(client):
    mark = marker()
    prompt = f"{mark} " + "of sea and wind. " * 20
    pieces = [piece for piece in client.stream([user(prompt)]) if piece]
    client.base.check_echo("".join(pieces), prompt)
    client.base.sent(mark)
    assert len(pieces) > 1, pieces


def chat_over_three_turns(client):
    turns = []
    for _ in range(3):
        mark = marker()
        turns.append(user(f"Turn of {mark}"))
        answer = client.ask(turns)
        client.base.check_echo(answer, f"Turn of {mark}")
        own = [turn for turn in turns_of(client.base.sent(mark)) if "Turn of" in json.dumps(turn)]
        assert len(own) == len(turns), "the history is not complete"
        turns.append({"role": "assistant", "content": answer})


def system_instruction(client):
    """A template's takes the place of the application's."""
    mark = marker()
    answer = client.ask([{"role": "system", "content": "Be brief."}, user(mark)])
    assert answer.startswith(f"[system: {client.base.system or 'Be brief.'}"), answer
    sent = json.dumps(client.base.sent(mark))
    assert ("Be brief." in sent) == (not client.base.system), "the application's system instruction went beside another"


def json_schema(client):
    mark = marker()
    assert client.structured([user(mark)]) == {"town": "Ulm"}
    assert "town" in json.dumps(client.base.sent(mark)), "the schema did not reach the model"


def function_called(client):
    mark = marker()
    assert client.call([user(mark)]) == ("weather", {"town": "Ulm"})
    assert "weather" in json.dumps(client.base.sent(mark)["tools"])


def function_result(client):
    """The call and its result go back to the model."""
    mark = marker()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'}
    client.ask([user(mark), {"role": "assistant", "content": None, "tool_calls": [call]}, result])
    sent = json.dumps(turns_of(client.base.sent(mark)))
    assert "weather" in sent and "Ulm" in sent and "clear" in sent, sent


def inline_image(client):
    mark = marker()
    image = {"type": "image_url", "image_url": {"url": IMAGE_URL}}
    client.ask([user([{"type": "text", "text": mark}, image])])
    # In either alphabet.
    sent = json.dumps(turns_of(client.base.sent(mark))).replace("-", "+").replace("_", "/")
    assert IMAGE in sent, "the image did not arrive as it was sent"


def embeddings(client):
    mark = marker()
    vectors = client.embed([mark, "two"])
    assert len(vectors) == 2 and all(vectors), vectors
    assert checks.sent(mark), "the text did not reach the model"


def count_tokens(client):
    mark = marker()
    client.base.check_count(client.count(mark), mark)
    client.base.sent(mark)


def models_list(client):
    names = client.models()
    assert any(name.endswith(f"/{MODEL}") for name in names), names


def an_error(client):
    try:
        client.ask([user(marker())], FAILED)
    except client.errors as error:
        assert "503" in f"{error} {getattr(error, 'status_code', '')} {getattr(error, 'code', '')}", repr(error)
    else:
        raise AssertionError("a 503 raised nothing")


def blocked_prompt(client):
    mark = marker()
    turns = [user(f"{mark} {INJECTION}")]
    assert outcome(lambda: client.finish(turns)) == ("", "content_filter")
    assert outcome(lambda: ("".join(client.stream(turns)), "content_filter")) == ("", "content_filter")
    assert checks.sent(mark) is None, "the blocked prompt reached the model"


def outcome(call):
    """The text and the reason of its end. Of what a guardrail stopped some SDKs make an error, which must tell it."""
    try:
        text, reason = call()
    except Exception as error:
        assert "content_filter" in str(error) or "block" in str(error).lower(), repr(error)
        return "", "content_filter"
    return text or "", reason


def blocked_answer(client):
    mark = marker()
    turns = [user(f"Tell of a town, {mark}")]
    text, reason = client.finish(turns, SAY_BAD_ANSWER)
    assert (text or "", reason) == ("", "content_filter"), (text, reason)
    client.base.sent(mark)


def blocked_answer_streamed(client):
    """An SDK may make an error of the end, not of what came before."""
    mark = marker()
    pieces = []
    try:
        for piece in client.stream([user(f"Tell of a town, {mark}")], SAY_BAD_ANSWER):
            pieces.append(piece)
    except Exception as error:
        assert "SAFETY" in str(error) or "finish_reason" in str(error), repr(error)
    checks.only_good_beginning("".join(pieces))
    client.base.sent(mark)


def cancelled(client):
    before = checks.left()
    stream = iter(client.stream([user(f"{marker()} " + "of sea and wind. " * 40)], SLOW))
    next(stream)
    close = getattr(stream, "close", None)
    if close:
        close()
    del stream
    checks.eventually(lambda: checks.left() - before, "the call is not recorded as left")


def large_body(client):
    prompt = marker() + "x" * LARGE_LETTERS
    client.base.check_echo(client.ask([user(prompt)]), prompt)


# What is large comes last, because every look at what was sent reads all that was sent before.
FEATURES = [
    plain,
    streamed,
    chat_over_three_turns,
    system_instruction,
    json_schema,
    function_called,
    function_result,
    inline_image,
    embeddings,
    count_tokens,
    models_list,
    an_error,
    blocked_prompt,
    blocked_answer,
    blocked_answer_streamed,
    cancelled,
    large_body,
]
# What these have no call for; and litellm counts without the headers that give a template its variables.
WITHOUT = {
    count_tokens: [(Openai, ""), (Openai, "by_path"), (Litellm, "by_path")],
    models_list: [(LangChain, ""), (LangChain, "by_path")],
}


def feature_check(feature, kind, place):
    def works():
        feature(kind(BASES[place]))

    works.__name__ = "_".join(filter(None, [kind.__name__.lower(), place, feature.__name__]))
    check(works)


for each_feature in FEATURES:
    for each_kind in (Openai, Litellm, LangChain, Retired):
        for each_place in BASES:
            if (each_kind, each_place) not in WITHOUT.get(each_feature, []):
                feature_check(each_feature, each_kind, each_place)

checks.run()
