// The @google/genai SDK against Chaperone, as an application would use it.

import assert from 'node:assert/strict';
import { ApiError, GoogleGenAI } from '@google/genai';
import * as checks from './checks.mjs';
import { CHAPERONE, INJECTION, MODEL, SAY_BAD_ANSWER, USER, marker, refusal } from './checks.mjs';

function client(baseUrl = CHAPERONE) {
  const httpOptions = { baseUrl, headers: { 'x-chaperone-user': USER }, timeout: checks.TIMEOUT_MS };
  return new GoogleGenAI({ apiKey: checks.API_KEY, vertexai: false, httpOptions });
}

function generate(prompt, { httpOptions, baseUrl, model = MODEL } = {}) {
  return client(baseUrl).models.generateContent({ model, contents: prompt, config: { httpOptions } });
}

async function stream(prompt, httpOptions) {
  const chunks = [];
  const config = { httpOptions };
  for await (const chunk of await client().models.generateContentStream({ model: MODEL, contents: prompt, config })) {
    chunks.push(chunk);
  }
  return chunks;
}

const textOf = (chunks) => chunks.map((chunk) => chunk.text ?? '').join('');

async function checkTemplate(answer, template, mark) {
  const body = await checks.templated(answer.sdkHttpResponse.headers, template, mark);
  assert.match(answer.text, /^\[system: /);
  assert(body.systemInstruction.parts[0].text, 'no system instruction went upstream');
  return body;
}

await checks.run({
  async plain() {
    const mark = marker();
    const answer = await generate(`Good morning, ${mark}`);
    assert.equal(answer.text, `Echo: Good morning, ${mark}`);
    assert(answer.usageMetadata.totalTokenCount > 0);
    checks.answered(answer.sdkHttpResponse.headers, mark);
  },

  async streamed() {
    const mark = marker();
    const prompt = `${mark} ${'tells of the sea and of the wind. '.repeat(30)}`;
    const chunks = await stream(prompt);
    assert.equal(textOf(chunks), `Echo: ${prompt}`);
    assert(chunks.length > 1, 'the answer came in one piece');
    assert.equal(chunks.at(-1).candidates[0].finishReason, 'STOP');
    checks.answered(chunks[0].sdkHttpResponse.headers, mark);
  },

  async chat_over_three_turns() {
    const chat = client().chats.create({ model: MODEL });
    for (const turn of [0, 1, 2]) {
      const mark = marker();
      const answer = await chat.sendMessage({ message: `Turn of ${mark}` });
      assert.equal(answer.text, `Echo: Turn of ${mark}`);
      const { body } = await checks.sent(mark);
      assert.equal(body.contents.length, 2 * turn + 1, 'the history is not complete');
      checks.answered(answer.sdkHttpResponse.headers, mark);
    }
  },

  async template_by_path() {
    const mark = marker();
    const variables = JSON.stringify({ text: `Rivers and lakes, ${mark}` });
    const answer = await generate('Begin', {
      baseUrl: `${CHAPERONE}/t/nlu_topic_extraction`,
      httpOptions: { headers: { 'x-chaperone-variables': variables } },
    });
    const body = await checkTemplate(answer, 'nlu_topic_extraction', mark);
    assert.equal(body.generationConfig.temperature, 0.2, "the template's model config is not merged");
  },

  async template_by_header() {
    const mark = marker();
    const variables = { question: `Où est la bibliothèque, ${mark}?`, context: 'A town in the mountains' };
    const headers = {
      'x-chaperone-template': 'clarification_question_generation',
      'x-chaperone-variables': checks.variablesHeader(variables),
    };
    const answer = await generate('Begin', { httpOptions: { headers } });
    const body = await checks.templated(answer.sdkHttpResponse.headers, 'clarification_question_generation', mark);
    // This template speaks as the user: its turn goes before what the application sent.
    assert.equal(body.contents.length, 2);
    const [prompt, own] = body.contents.map((turn) => turn.parts[0].text);
    for (const value of Object.values(variables)) assert(prompt.includes(value), 'a variable did not arrive whole');
    assert.equal(own, 'Begin');
    assert(!('systemInstruction' in body), 'a system instruction went upstream');
  },

  async template_by_body() {
    const mark = marker();
    const variables = { text: `Bäume und Blumen, ${mark}`, max_topics: 3 };
    const extraBody = { chaperone: { template: 'nlu_topic_extraction', variables } };
    const answer = await generate('Begin', { httpOptions: { extraBody } });
    await checkTemplate(answer, 'nlu_topic_extraction', mark);
  },

  async blocked_prompt() {
    const mark = marker();
    const answer = await generate(`${mark} ${INJECTION}`);
    assert.equal(answer.promptFeedback.blockReason, 'PROHIBITED_CONTENT');
    assert.equal(answer.candidates, undefined);
    await checks.blocked(answer.sdkHttpResponse.headers, 'prompt_injection_detection', mark);
  },

  async blocked_prompt_streamed() {
    const mark = marker();
    const chunks = await stream(`${mark} ${INJECTION}`);
    assert.equal(chunks.length, 1);
    assert.equal(chunks[0].promptFeedback.blockReason, 'PROHIBITED_CONTENT');
    assert.equal(chunks[0].candidates, undefined);
    await checks.blocked(chunks[0].sdkHttpResponse.headers, 'prompt_injection_detection', mark);
  },

  async blocked_answer() {
    const mark = marker();
    const answer = await generate(`Tell of a town, ${mark}`, { httpOptions: { headers: SAY_BAD_ANSWER } });
    assert.equal(answer.candidates[0].finishReason, 'SAFETY');
    assert.equal(answer.candidates[0].content, undefined);
    checks.answered(answer.sdkHttpResponse.headers, mark);
  },

  async blocked_answer_streamed() {
    const mark = marker();
    const chunks = await stream(`Tell of a town, ${mark}`, { headers: SAY_BAD_ANSWER });
    checks.onlyGoodBeginning(textOf(chunks));
    assert.equal(chunks.at(-1).candidates[0].finishReason, 'SAFETY');
    checks.answered(chunks[0].sdkHttpResponse.headers, mark);
  },

  async unknown_model() {
    const error = await refusal(ApiError, () => generate('Good morning', { model: 'no-such-model' }));
    assert.equal(error.status, 404);
    assert.match(error.message, /NOT_FOUND/);
  },

  async unknown_template() {
    const baseUrl = `${CHAPERONE}/t/no_such_template`;
    const error = await refusal(ApiError, () => generate('Good morning', { baseUrl }));
    assert.equal(error.status, 404);
    assert.match(error.message, /no_such_template/);
  },

  async missing_variable() {
    const headers = { 'x-chaperone-template': 'educational_script_generation' };
    const error = await refusal(ApiError, () => generate('Good morning', { httpOptions: { headers } }));
    assert.equal(error.status, 400);
    assert.match(error.message, /topic/);
  },

  async count_tokens() {
    const contents = 'How many tokens are in this sentence?';
    const answer = await client().models.countTokens({ model: MODEL, contents });
    assert(answer.totalTokens > 0);
  },

  recorded: checks.checkRecords,
});
