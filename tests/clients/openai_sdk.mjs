// The openai SDK against Chaperone's OpenAI-compatible path, as an application would use it.

import assert from 'node:assert/strict';
import OpenAI from 'openai';
import * as checks from './checks.mjs';
import { CHAPERONE, INJECTION, MODEL, SAY_BAD_ANSWER, USER, marker, refusal } from './checks.mjs';

function client(baseUrl = CHAPERONE) {
  return new OpenAI({
    apiKey: checks.API_KEY,
    baseURL: `${baseUrl}/v1beta/openai/`,
    defaultHeaders: { 'x-chaperone-user': USER },
    timeout: checks.TIMEOUT_MS,
    maxRetries: 0,
  });
}

const user = (content) => ({ role: 'user', content });
const textOf = (completion) => completion.choices[0].message.content;

/** The headers of the answer and the answer. `body` is merged into the request. */
async function complete(prompt, { headers, baseUrl, body } = {}) {
  const messages = typeof prompt === 'string' ? [user(prompt)] : prompt;
  const call = client(baseUrl).chat.completions.create({ model: MODEL, messages, ...body }, { headers });
  const { data, response } = await call.withResponse();
  return [Object.fromEntries(response.headers), data];
}

/** The headers of the answer, its text, how many pieces of text came, and the last finish reason. */
async function stream(prompt, headers) {
  const body = { stream: true, stream_options: { include_usage: true } };
  const [answerHeaders, chunks] = await complete(prompt, { headers, body });
  const pieces = [];
  let finishReason;
  for await (const chunk of chunks) {
    const [choice] = chunk.choices;
    if (choice?.delta?.content) pieces.push(choice.delta.content);
    finishReason = choice?.finish_reason ?? finishReason;
  }
  return { headers: answerHeaders, text: pieces.join(''), pieces: pieces.length, finishReason };
}

async function checkTemplate([headers, completion], template, mark) {
  const body = await checks.templated(headers, template, mark);
  assert.match(textOf(completion), /^\[system: /);
  assert.equal(body.messages[0].role, 'system', 'no system message went upstream');
  return body;
}

async function checkBlocked(call, mark) {
  const error = await refusal(OpenAI.BadRequestError, call);
  assert.equal(error.code, 'content_filter');
  await checks.blocked(Object.fromEntries(error.headers), 'prompt_injection_detection', mark);
}

await checks.run({
  async plain() {
    const mark = marker();
    const [headers, completion] = await complete(`Good morning, ${mark}`);
    assert.equal(textOf(completion), `Echo: Good morning, ${mark}`);
    assert(completion.usage.total_tokens > 0);
    checks.answered(headers, mark);
  },

  async streamed() {
    const mark = marker();
    const prompt = `${mark} ${'tells of the sea and of the wind. '.repeat(30)}`;
    const answer = await stream(prompt);
    assert.equal(answer.text, `Echo: ${prompt}`);
    assert(answer.pieces > 1, 'the answer came in one piece');
    assert.equal(answer.finishReason, 'stop');
    checks.answered(answer.headers, mark);
  },

  async chat_over_three_turns() {
    const messages = [];
    for (let turn = 0; turn < 3; turn += 1) {
      const mark = marker();
      messages.push(user(`Turn of ${mark}`));
      const [headers, completion] = await complete(messages);
      assert.equal(textOf(completion), `Echo: Turn of ${mark}`);
      const { body } = await checks.sent(mark);
      assert.equal(body.messages.length, messages.length, 'the history is not complete');
      checks.answered(headers, mark);
      messages.push({ role: 'assistant', content: textOf(completion) });
    }
  },

  async template_by_path() {
    const mark = marker();
    const answer = await complete('Begin', {
      baseUrl: `${CHAPERONE}/t/nlu_topic_extraction`,
      headers: { 'x-chaperone-variables': JSON.stringify({ text: `Rivers and lakes, ${mark}` }) },
    });
    const body = await checkTemplate(answer, 'nlu_topic_extraction', mark);
    assert.equal(body.temperature, 0.2, "the template's model config is not merged");
  },

  async template_by_header() {
    const mark = marker();
    const variables = { question: `Où est la bibliothèque, ${mark}?`, context: 'A town in the mountains' };
    const headers = {
      'x-chaperone-template': 'clarification_question_generation',
      'x-chaperone-variables': checks.variablesHeader(variables),
    };
    const [answerHeaders, completion] = await complete('Begin', { headers });
    const body = await checks.templated(answerHeaders, 'clarification_question_generation', mark);
    // This template speaks as the user: its message goes before what the application sent.
    assert.equal(body.messages.length, 2);
    const [prompt, own] = body.messages;
    assert.equal(prompt.role, 'user');
    for (const value of Object.values(variables)) {
      assert(prompt.content.includes(value), 'a variable did not arrive whole');
    }
    assert.deepEqual(own, user('Begin'));
    assert.equal(textOf(completion), 'Echo: Begin');
  },

  async template_by_body() {
    const mark = marker();
    const variables = { text: `Bäume und Blumen, ${mark}`, max_topics: 3 };
    const body = { chaperone: { template: 'nlu_topic_extraction', variables } };
    const answer = await complete('Begin', { body });
    await checkTemplate(answer, 'nlu_topic_extraction', mark);
  },

  async blocked_prompt() {
    const mark = marker();
    await checkBlocked(() => complete(`${mark} ${INJECTION}`), mark);
  },

  async blocked_prompt_streamed() {
    const mark = marker();
    await checkBlocked(() => stream(`${mark} ${INJECTION}`), mark);
  },

  async blocked_answer() {
    const mark = marker();
    const [headers, completion] = await complete(`Tell of a town, ${mark}`, { headers: SAY_BAD_ANSWER });
    assert.equal(completion.choices[0].finish_reason, 'content_filter');
    assert(!textOf(completion), `received '${textOf(completion)}'`);
    checks.answered(headers, mark);
  },

  async blocked_answer_streamed() {
    const mark = marker();
    const answer = await stream(`Tell of a town, ${mark}`, SAY_BAD_ANSWER);
    checks.onlyGoodBeginning(answer.text);
    assert.equal(answer.finishReason, 'content_filter');
    checks.answered(answer.headers, mark);
  },

  async unknown_model() {
    await refusal(OpenAI.NotFoundError, () => complete('Good morning', { body: { model: 'no-such-model' } }));
  },

  async unknown_template() {
    const baseUrl = `${CHAPERONE}/t/no_such_template`;
    const error = await refusal(OpenAI.NotFoundError, () => complete('Good morning', { baseUrl }));
    assert.match(error.message, /no_such_template/);
  },

  async missing_variable() {
    const headers = { 'x-chaperone-template': 'educational_script_generation' };
    const error = await refusal(OpenAI.BadRequestError, () => complete('Good morning', { headers }));
    assert.match(error.message, /topic/);
  },

  recorded: checks.checkRecords,
});
