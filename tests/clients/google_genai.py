"""The google-genai SDK against Chaperone, as an application would use it."""

import functools
import json

from google import genai
from google.genai import errors, types

import checks
from checks import CHAPERONE, INJECTION, MODEL, SAY_BAD_ANSWER, USER, check, marker, refusal


# Kept, because a client closes its connections as soon as nobody holds it.
@functools.cache
def client(base_url=CHAPERONE):
    options = types.HttpOptions(
        base_url=base_url,
        headers={"x-chaperone-user": USER},
        timeout=checks.TIMEOUT_S * 1000,
    )
    return genai.Client(api_key=checks.API_KEY, vertexai=False, http_options=options)


def per_call(headers=None, extra_body=None):
    options = types.HttpOptions(headers=headers, extra_body=extra_body)
    return types.GenerateContentConfig(http_options=options)


def generate(prompt, config=None, base_url=CHAPERONE, model=MODEL):
    return client(base_url).models.generate_content(model=model, contents=prompt, config=config)


def stream(prompt, config=None):
    return list(client().models.generate_content_stream(model=MODEL, contents=prompt, config=config))


def check_template(answer, template, mark):
    body = checks.templated(answer.sdk_http_response.headers, template, mark)
    assert answer.text.startswith("[system: "), f"received {answer.text!r}"
    assert body["systemInstruction"]["parts"][0]["text"], "no system instruction went upstream"
    return body


@check
def plain():
    mark = marker()
    answer = generate(f"Good morning, {mark}")
    assert answer.text == f"Echo: Good morning, {mark}", f"received {answer.text!r}"
    assert answer.usage_metadata.total_token_count > 0
    checks.answered(answer.sdk_http_response.headers, mark)


@check
def streamed():
    mark = marker()
    prompt = f"{mark} " + "tells of the sea and of the wind. " * 30
    chunks = stream(prompt)
    text = "".join(chunk.text or "" for chunk in chunks)
    assert text == f"Echo: {prompt}", f"received {text!r}"
    assert len(chunks) > 1, "the answer came in one piece"
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    checks.answered(chunks[0].sdk_http_response.headers, mark)


@check
def chat_over_three_turns():
    chat = client().chats.create(model=MODEL)
    for turn in range(3):
        mark = marker()
        answer = chat.send_message(f"Turn of {mark}")
        assert answer.text == f"Echo: Turn of {mark}", f"received {answer.text!r}"
        assert len(checks.sent(mark)["body"]["contents"]) == 2 * turn + 1, "the history is not complete"
        checks.answered(answer.sdk_http_response.headers, mark)


@check
def template_by_path():
    mark = marker()
    config = per_call({"x-chaperone-variables": json.dumps({"text": f"Rivers and lakes, {mark}"})})
    answer = generate("Begin", config, base_url=f"{CHAPERONE}/t/nlu_topic_extraction")
    body = check_template(answer, "nlu_topic_extraction", mark)
    assert body["generationConfig"]["temperature"] == 0.2, "the template's model config is not merged"


@check
def template_by_header():
    mark = marker()
    variables = {"question": f"Où est la bibliothèque, {mark}?", "context": "A town in the mountains"}
    config = per_call(
        {
            "x-chaperone-template": "clarification_question_generation",
            "x-chaperone-variables": checks.variables_header(variables),
        }
    )
    answer = generate("Begin", config)
    body = checks.templated(answer.sdk_http_response.headers, "clarification_question_generation", mark)
    # This template speaks as the user: its turn goes before what the application sent.
    prompt, own = [turn["parts"][0]["text"] for turn in body["contents"]]
    assert variables["question"] in prompt and variables["context"] in prompt, "a variable did not arrive whole"
    assert own == "Begin", f"the application's turn became {own!r}"
    assert "systemInstruction" not in body, "a system instruction went upstream"


@check
def template_by_body():
    mark = marker()
    variables = {"text": f"Bäume und Blumen, {mark}", "max_topics": 3}
    config = per_call(extra_body={"chaperone": {"template": "nlu_topic_extraction", "variables": variables}})
    check_template(generate("Begin", config), "nlu_topic_extraction", mark)


@check
def blocked_prompt():
    mark = marker()
    answer = generate(f"{mark} {INJECTION}")
    assert answer.prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    assert not answer.candidates and answer.text is None
    checks.blocked(answer.sdk_http_response.headers, "prompt_injection_detection", mark)


@check
def blocked_prompt_streamed():
    mark = marker()
    chunks = stream(f"{mark} {INJECTION}")
    assert len(chunks) == 1, f"{len(chunks)} chunks"
    assert chunks[0].prompt_feedback.block_reason == types.BlockedReason.PROHIBITED_CONTENT
    assert not chunks[0].candidates
    checks.blocked(chunks[0].sdk_http_response.headers, "prompt_injection_detection", mark)


@check
def blocked_answer():
    mark = marker()
    answer = generate(f"Tell of a town, {mark}", per_call(SAY_BAD_ANSWER))
    assert answer.candidates[0].finish_reason == types.FinishReason.SAFETY
    assert answer.candidates[0].content is None and not answer.text
    checks.answered(answer.sdk_http_response.headers, mark)


@check
def blocked_answer_streamed():
    mark = marker()
    chunks = stream(f"Tell of a town, {mark}", per_call(SAY_BAD_ANSWER))
    checks.only_good_beginning("".join(chunk.text or "" for chunk in chunks))
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.SAFETY
    checks.answered(chunks[0].sdk_http_response.headers, mark)


@check
def unknown_model():
    error = refusal(errors.ClientError, lambda: generate("Good morning", model="no-such-model"))
    assert (error.code, error.status) == (404, "NOT_FOUND"), str(error)


@check
def unknown_template():
    base_url = f"{CHAPERONE}/t/no_such_template"
    error = refusal(errors.ClientError, lambda: generate("Good morning", base_url=base_url))
    assert (error.code, error.status) == (404, "NOT_FOUND"), str(error)
    assert "no_such_template" in error.message, error.message


@check
def missing_variable():
    config = per_call({"x-chaperone-template": "educational_script_generation"})
    error = refusal(errors.ClientError, lambda: generate("Good morning", config))
    assert (error.code, error.status) == (400, "INVALID_ARGUMENT"), str(error)
    assert "topic" in error.message, error.message


@check
def count_tokens():
    answer = client().models.count_tokens(model=MODEL, contents="How many tokens are in this sentence?")
    assert answer.total_tokens > 0


@check
def recorded():
    checks.check_records()


if __name__ == "__main__":
    checks.run()
