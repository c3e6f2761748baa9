"""The openai SDK against Chaperone's OpenAI-compatible path, as an application would use it."""

import json

import openai

import checks
from checks import CHAPERONE, INJECTION, MODEL, SAY_BAD_ANSWER, USER, check, marker, refusal


def client(base_url=CHAPERONE):
    return openai.OpenAI(
        api_key=checks.API_KEY,
        base_url=f"{base_url}/v1beta/openai/",
        default_headers={"x-chaperone-user": USER},
        timeout=checks.TIMEOUT_S,
        max_retries=0,
    )


def user(text):
    return {"role": "user", "content": text}


def complete(prompt, base_url=CHAPERONE, model=MODEL, **more):
    """The headers of the answer and the answer."""
    messages = [user(prompt)] if isinstance(prompt, str) else prompt
    completions = client(base_url).chat.completions
    raw = completions.with_raw_response.create(model=model, messages=messages, **more)
    return raw.headers, raw.parse()


def stream(prompt, **more):
    """The headers of the answer, its text, how many pieces of text came, and the last finish reason."""
    more["stream_options"] = {"include_usage": True}
    headers, chunks = complete(prompt, stream=True, **more)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    pieces = [choice.delta.content for choice in choices if choice.delta.content]
    return headers, "".join(pieces), len(pieces), choices[-1].finish_reason


def text_of(completion):
    return completion.choices[0].message.content


def check_template(headers, completion, template, mark):
    body = checks.templated(headers, template, mark)
    assert text_of(completion).startswith("[system: "), f"received {text_of(completion)!r}"
    assert body["messages"][0]["role"] == "system", "no system message went upstream"
    return body


def check_blocked(call, mark):
    error = refusal(openai.BadRequestError, call)
    assert error.code == "content_filter", str(error)
    checks.blocked(error.response.headers, "prompt_injection_detection", mark)


@check
def plain():
    mark = marker()
    headers, completion = complete(f"Good morning, {mark}")
    assert text_of(completion) == f"Echo: Good morning, {mark}", f"received {text_of(completion)!r}"
    assert completion.usage.total_tokens > 0
    checks.answered(headers, mark)


@check
def streamed():
    mark = marker()
    prompt = f"{mark} " + "tells of the sea and of the wind. " * 30
    headers, text, pieces, finish_reason = stream(prompt)
    assert text == f"Echo: {prompt}", f"received {text!r}"
    assert pieces > 1, "the answer came in one piece"
    assert finish_reason == "stop", f"finish_reason is {finish_reason}"
    checks.answered(headers, mark)


@check
def chat_over_three_turns():
    messages = []
    for _ in range(3):
        mark = marker()
        messages.append(user(f"Turn of {mark}"))
        headers, completion = complete(messages)
        assert text_of(completion) == f"Echo: Turn of {mark}", f"received {text_of(completion)!r}"
        assert len(checks.sent(mark)["body"]["messages"]) == len(messages), "the history is not complete"
        checks.answered(headers, mark)
        messages.append({"role": "assistant", "content": text_of(completion)})


@check
def template_by_path():
    mark = marker()
    variables = {"x-chaperone-variables": json.dumps({"text": f"Rivers and lakes, {mark}"})}
    base_url = f"{CHAPERONE}/t/nlu_topic_extraction"
    headers, completion = complete("Begin", base_url=base_url, extra_headers=variables)
    body = check_template(headers, completion, "nlu_topic_extraction", mark)
    assert body["temperature"] == 0.2, "the template's model config is not merged"


@check
def template_by_header():
    mark = marker()
    variables = {"question": f"Où est la bibliothèque, {mark}?", "context": "A town in the mountains"}
    chosen = {
        "x-chaperone-template": "clarification_question_generation",
        "x-chaperone-variables": checks.variables_header(variables),
    }
    headers, completion = complete("Begin", extra_headers=chosen)
    body = checks.templated(headers, "clarification_question_generation", mark)
    # This template speaks as the user: its message goes before what the application sent.
    prompt, own = body["messages"]
    assert prompt["role"] == "user", f"the template speaks as {prompt['role']}"
    assert variables["question"] in prompt["content"], "a variable did not arrive whole"
    assert variables["context"] in prompt["content"], "a variable did not arrive whole"
    assert own == user("Begin"), f"the application's message became {own}"
    assert text_of(completion) == "Echo: Begin", f"received {text_of(completion)!r}"


@check
def template_by_body():
    mark = marker()
    variables = {"text": f"Bäume und Blumen, {mark}", "max_topics": 3}
    chosen = {"chaperone": {"template": "nlu_topic_extraction", "variables": variables}}
    headers, completion = complete("Begin", extra_body=chosen)
    check_template(headers, completion, "nlu_topic_extraction", mark)


@check
def blocked_prompt():
    mark = marker()
    check_blocked(lambda: complete(f"{mark} {INJECTION}"), mark)


@check
def blocked_prompt_streamed():
    mark = marker()
    check_blocked(lambda: stream(f"{mark} {INJECTION}"), mark)


@check
def blocked_answer():
    mark = marker()
    headers, completion = complete(f"Tell of a town, {mark}", extra_headers=SAY_BAD_ANSWER)
    assert completion.choices[0].finish_reason == "content_filter", str(completion.choices[0])
    assert not text_of(completion), f"received {text_of(completion)!r}"
    checks.answered(headers, mark)


@check
def blocked_answer_streamed():
    mark = marker()
    headers, text, _, finish_reason = stream(f"Tell of a town, {mark}", extra_headers=SAY_BAD_ANSWER)
    checks.only_good_beginning(text)
    assert finish_reason == "content_filter", f"finish_reason is {finish_reason}"
    checks.answered(headers, mark)


@check
def unknown_model():
    refusal(openai.NotFoundError, lambda: complete("Good morning", model="no-such-model"))


@check
def unknown_template():
    base_url = f"{CHAPERONE}/t/no_such_template"
    error = refusal(openai.NotFoundError, lambda: complete("Good morning", base_url=base_url))
    assert "no_such_template" in error.message, error.message


@check
def missing_variable():
    chosen = {"x-chaperone-template": "educational_script_generation"}
    error = refusal(openai.BadRequestError, lambda: complete("Good morning", extra_headers=chosen))
    assert "topic" in error.message, error.message


@check
def recorded():
    checks.check_records()


if __name__ == "__main__":
    checks.run()
