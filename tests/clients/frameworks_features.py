"""What openai, LangChain, litellm and google-generativeai can do beyond a plain text, through Chaperone."""

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

import checks
from checks import CHAPERONE, INJECTION, MODEL, SAY_BAD_ANSWER, USER, check, marker

LARGE_LETTERS = 4_000_000
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

    def __init__(self):
        self.client = openai.OpenAI(
            api_key=checks.API_KEY, base_url=f"{CHAPERONE}/v1beta/openai/", timeout=checks.TIMEOUT_S, max_retries=0
        )

    errors = openai.APIStatusError
    embedding_model = "gemini-embedding-001"

    def complete(self, messages, headers=None, **more):
        headers = {"x-chaperone-user": USER, **(headers or {})}
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
        answer = self.client.embeddings.create(model=self.embedding_model, input=texts)
        return [one.embedding for one in answer.data]


class Litellm(Openai):
    """The same form, which it translates to the native one."""

    def __init__(self):
        self.common = {"api_key": checks.API_KEY, "api_base": f"{CHAPERONE}/v1beta", "timeout": checks.TIMEOUT_S}

    def complete(self, messages, headers=None, **more):
        headers = {"x-chaperone-user": USER, **(headers or {})}
        return litellm.completion(
            model=f"gemini/{MODEL}", messages=messages, extra_headers=headers, num_retries=0, **self.common, **more
        )

    def stream(self, turns, headers=None):
        for chunk in self.complete(turns, headers, stream=True):
            yield chunk.choices[0].delta.content or ""

    def embed(self, texts):
        answer = litellm.embedding(model=f"gemini/{self.embedding_model}", input=texts, **self.common)
        return [one["embedding"] for one in answer.data]


class LangChain:
    """Messages of its own, over google-genai."""

    errors = Exception
    kinds = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}

    def model(self, headers=None, **more):
        return ChatGoogleGenerativeAI(
            model=MODEL,
            google_api_key=checks.API_KEY,
            base_url=CHAPERONE,
            additional_headers={"x-chaperone-user": USER, **(headers or {})},
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
            model="gemini-embedding-001", google_api_key=checks.API_KEY, base_url=CHAPERONE
        ).embed_documents(texts)


class Retired:
    """google-generativeai: its headers are given once for the whole process."""

    errors = google_errors.GoogleAPIError

    def model(self, headers=None, **more):
        metadata = [("x-chaperone-user", USER), *(headers or {}).items()]
        retired.configure(
            api_key=checks.API_KEY,
            transport="rest",
            client_options={"api_endpoint": CHAPERONE},
            default_metadata=metadata,
        )
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
        return model.generate_content(
            contents, stream=stream, request_options={"timeout": checks.TIMEOUT_S, "retry": None}, **more
        )

    def ask(self, turns, headers=None):
        return self.generate(turns, headers).text

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
        self.model()
        return retired.embed_content(model="models/gemini-embedding-001", content=texts)["embedding"]


FUNCTION_OF_GOOGLE = {
    **FUNCTION,
    "parameters": {"type": "OBJECT", "properties": {"town": {"type": "STRING"}}, "required": ["town"]},
}


def user(text):
    return {"role": "user", "content": text}


def upstream(mark):
    """What went upstream, whichever dialect."""
    return checks.sent(mark)["body"]


def turns_of(body):
    return body.get("contents") or body["messages"]


def chat_over_three_turns(client):
    turns = []
    for _ in range(3):
        mark = marker()
        turns.append(user(f"Turn of {mark}"))
        answer = client.ask(turns)
        assert answer == f"Echo: Turn of {mark}", answer
        assert len(turns_of(upstream(mark))) == len(turns), "the history is not complete"
        turns.append({"role": "assistant", "content": answer})


def system_instruction(client):
    answer = client.ask([{"role": "system", "content": "Be brief."}, user(marker())])
    assert answer.startswith("[system: Be brief."), answer


def streamed(client):
    prompt = f"{marker()} " + "of sea and wind. " * 20
    pieces = [piece for piece in client.stream([user(prompt)]) if piece]
    assert "".join(pieces) == f"Echo: {prompt}" and len(pieces) > 1, pieces


def json_schema(client):
    assert client.structured([user(marker())]) == {"town": "Ulm"}


def function_called(client):
    mark = marker()
    assert client.call([user(mark)]) == ("weather", {"town": "Ulm"})
    assert "weather" in json.dumps(upstream(mark)["tools"])


def function_result(client):
    """The call and its result go back to the model."""
    mark = marker()
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"sky": "clear"}'}
    client.ask([user(mark), {"role": "assistant", "content": None, "tool_calls": [call]}, result])
    sent = json.dumps(turns_of(upstream(mark)))
    assert "weather" in sent and "Ulm" in sent and "clear" in sent, sent


def inline_image(client):
    mark = marker()
    image = {"type": "image_url", "image_url": {"url": IMAGE_URL}}
    client.ask([user([{"type": "text", "text": mark}, image])])
    # In either alphabet.
    sent = json.dumps(turns_of(upstream(mark))).replace("-", "+").replace("_", "/")
    assert IMAGE in sent, "the image did not arrive as it was sent"


def embeddings(client):
    vectors = client.embed([marker(), "two"])
    assert len(vectors) == 2 and all(vectors), vectors


def an_error(client):
    try:
        client.ask([user(marker())], FAILED)
    except client.errors as error:
        assert "503" in f"{error} {getattr(error, 'status_code', '')} {getattr(error, 'code', '')}", repr(error)
    else:
        raise AssertionError("a 503 raised nothing")


def blocked_prompt(client):
    mark = marker()
    try:
        text, reason = client.finish([user(f"{mark} {INJECTION}")])
    except Exception as error:
        assert "content_filter" in str(error) or "block" in str(error).lower(), repr(error)
    else:
        assert (text or "", reason) == ("", "content_filter"), (text, reason)
    assert checks.sent(mark) is None, "the blocked prompt reached the model"


def blocked_answer(client):
    text, reason = client.finish([user(f"Tell of a town, {marker()}")], SAY_BAD_ANSWER)
    assert (text or "", reason) == ("", "content_filter"), (text, reason)


def cancelled(client):
    before = left()
    stream = iter(client.stream([user(f"{marker()} " + "of sea and wind. " * 40)], SLOW))
    next(stream)
    close = getattr(stream, "close", None)
    if close:
        close()
    del stream
    checks.eventually(lambda: left() > before, "the call is not recorded as left")


def left():
    return sum(item["outcome"] == "client_left" for item in checks.executions(USER))


def large_body(client):
    answer = client.ask([user(marker() + "x" * LARGE_LETTERS)])
    assert len(answer) > LARGE_LETTERS, f"{len(answer)} letters came back"


FEATURES = [
    chat_over_three_turns,
    system_instruction,
    streamed,
    json_schema,
    function_called,
    function_result,
    inline_image,
    embeddings,
    an_error,
    blocked_prompt,
    blocked_answer,
    cancelled,
    large_body,
]


def feature_check(kind, feature):
    def works():
        feature(kind())

    works.__name__ = f"{kind.__name__.lower()}_{feature.__name__}"
    check(works)


for each_kind in (Openai, Litellm, LangChain, Retired):
    for each_feature in FEATURES:
        feature_check(each_kind, each_feature)

checks.run()
