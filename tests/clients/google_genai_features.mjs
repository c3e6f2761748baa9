// What @google/genai can do, through Chaperone: each feature at both bases.

import assert from 'node:assert/strict';
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { ApiError, GoogleGenAI } from '@google/genai';
import * as checks from './checks.mjs';
import { BASES, MODEL, marker, refusal } from './checks.mjs';

const LARGE_LETTERS = 4_000_000;
// More than the SDK sends at once.
const UPLOADED_BYTES = 20_000_000;

const simulate = (script) => ({ httpOptions: { headers: { 'x-simulate': script } } });
const say = (text) => simulate(`say=${Buffer.from(text).toString('base64url')}`);
const textOf = (chunks) => chunks.map((chunk) => chunk.text ?? '').join('');

/** A client, pointed at a base. */
class Caller {
  constructor(base) {
    this.base = base;
    const httpOptions = { baseUrl: base.url, headers: base.headers, timeout: checks.TIMEOUT_MS };
    this.sdk = new GoogleGenAI({ apiKey: checks.API_KEY, vertexai: false, httpOptions });
  }

  generate(contents, config) {
    return this.sdk.models.generateContent({ model: MODEL, contents, config });
  }

  stream(contents, config) {
    return this.sdk.models.generateContentStream({ model: MODEL, contents, config });
  }

  async chunks(contents, config) {
    return listed(await this.stream(contents, config));
  }
}

async function listed(made) {
  const items = [];
  for await (const one of made) items.push(one);
  return items;
}

// What is large comes last, because every look at what was sent reads all that was sent before.
const features = {
  async plain(caller) {
    const mark = marker();
    const answer = await caller.generate(mark);
    caller.base.checkEcho(answer.text, mark);
    assert(answer.usageMetadata.totalTokenCount > 0);
    await caller.base.sent(mark);
  },

  async streamed(caller) {
    const mark = marker();
    const prompt = `${mark} ${'of sea and wind. '.repeat(20)}`;
    const chunks = await caller.chunks(prompt);
    caller.base.checkEcho(textOf(chunks), prompt);
    await caller.base.sent(mark);
    assert(chunks.length > 1, 'the answer came in one piece');
    assert.equal(chunks.at(-1).candidates[0].finishReason, 'STOP');
  },

  async chat_over_three_turns(caller) {
    const chat = caller.sdk.chats.create({ model: MODEL });
    for (const turn of [0, 1, 2]) {
      const mark = marker();
      const answer = await chat.sendMessage({ message: `Turn of ${mark}` });
      caller.base.checkEcho(answer.text, `Turn of ${mark}`);
      const { contents } = await caller.base.sent(mark);
      const own = contents.filter((one) => JSON.stringify(one).includes('Turn of'));
      assert.equal(own.length, 2 * turn + 1, 'the history is not complete');
    }
  },

  // A template's takes the place of the application's.
  async system_instruction(caller) {
    const mark = marker();
    const system = caller.base.system ?? 'Be brief.';
    const answer = await caller.generate(mark, { systemInstruction: 'Be brief.' });
    assert(answer.text.startsWith(`[system: ${system}`), answer.text);
    const { parts } = (await caller.base.sent(mark)).systemInstruction;
    assert(parts.length === 1 && parts[0].text.startsWith(system), JSON.stringify(parts));
  },

  async json_schema(caller) {
    const mark = marker();
    const responseSchema = { type: 'OBJECT', properties: { town: { type: 'STRING' } }, required: ['town'] };
    const config = { ...say('{"town": "Ulm"}'), responseMimeType: 'application/json', responseSchema };
    const answer = await caller.generate(mark, config);
    assert.deepEqual(JSON.parse(answer.text), { town: 'Ulm' });
    assert.deepEqual((await caller.base.sent(mark)).generationConfig.responseSchema.required, ['town']);
  },

  // A turn with a call and its result: both reach the model, and the signature of the call unchanged.
  async functions(caller) {
    const mark = marker();
    const call = { functionCall: { name: 'weather', args: { town: 'Ulm' } }, thoughtSignature: 'AHNpZ25lZP8=' };
    const result = { functionResponse: { name: 'weather', response: { sky: 'clear' } } };
    const tools = [{ functionDeclarations: [{ name: 'weather', description: 'The sky now.' }] }];
    const contents = [
      { role: 'user', parts: [{ text: mark }] },
      { role: 'model', parts: [call] },
      { role: 'user', parts: [result] },
    ];
    await caller.generate(contents, { tools });
    const body = await caller.base.sent(mark);
    assert.deepEqual(body.tools, tools);
    assert.deepEqual(body.contents.slice(-2).map((turn) => turn.parts[0]), [call, result]);
  },

  async inline_image(caller) {
    const mark = marker();
    const data = Buffer.alloc(16_384, 7).toString('base64');
    await caller.generate([mark, { inlineData: { mimeType: 'image/png', data } }]);
    assert.equal((await caller.base.sent(mark)).contents.at(-1).parts[1].inlineData.data, data);
  },

  async embeddings(caller) {
    const mark = marker();
    const { embeddings } = await caller.sdk.models.embedContent({
      model: 'gemini-embedding-001',
      contents: [mark, 'two'],
    });
    assert(embeddings.length > 0 && embeddings.every((one) => one.values.length > 0));
    assert(await checks.sent(mark), 'the text did not reach the model');
  },

  async count_tokens(caller) {
    const mark = marker();
    const { totalTokens } = await caller.sdk.models.countTokens({ model: MODEL, contents: mark });
    caller.base.checkCount(totalTokens, mark);
    await caller.base.sent(mark);
  },

  async models_list(caller) {
    const names = (await listed(await caller.sdk.models.list())).map((one) => one.name);
    assert(names.includes(`models/${MODEL}`), `received [${names}]`);
  },

  async an_error(caller) {
    const error = await refusal(ApiError, () => caller.generate(marker(), simulate('status=503')));
    assert.equal(error.status, 503);
  },

  async blocked_prompt(caller) {
    const mark = marker();
    const prompt = `${mark} ${checks.INJECTION}`;
    for (const chunks of [[await caller.generate(prompt)], await caller.chunks(prompt)]) {
      assert.deepEqual(chunks.map((chunk) => chunk.promptFeedback?.blockReason), ['PROHIBITED_CONTENT']);
      assert.equal(chunks[0].candidates, undefined);
    }
    assert.equal(await checks.sent(mark), undefined, 'the blocked prompt reached the model');
  },

  async blocked_answer(caller) {
    const mark = marker();
    const config = say(checks.BAD_ANSWER);
    const answer = await caller.generate(mark, config);
    const chunks = await caller.chunks(mark, config);
    await caller.base.sent(mark);
    assert(!answer.text, answer.text);
    checks.onlyGoodBeginning(textOf(chunks));
    for (const last of [answer, chunks.at(-1)]) assert.equal(last.candidates[0].finishReason, 'SAFETY');
  },

  async cancelled(caller) {
    const before = await checks.left();
    const stop = new AbortController();
    const config = { ...simulate('gap_ms=50,chunk=4'), abortSignal: stop.signal };
    const chunks = await caller.stream(`${marker()} ${'of sea and wind. '.repeat(40)}`, config);
    await chunks.next();
    stop.abort();
    await assert.rejects(listed(chunks));
    const hasLeft = async () => [...(await checks.left())].some((id) => !before.has(id));
    await checks.eventually(hasLeft, 'the call is not recorded as left');
  },

  // Created, streamed, read and cancelled; and what a guardrail blocks is an error in their own form.
  async interactions(caller) {
    const mark = marker();
    const made = caller.sdk.interactions;
    const answer = await made.create({ model: MODEL, input: mark });
    assert.equal(answer.status, 'completed');
    const text = JSON.stringify(answer.steps);
    assert(text.includes('Echo: ') && text.includes(mark), text);
    await caller.base.sent(mark);
    const input = 'of sea and wind. '.repeat(20);
    const events = await listed(await made.create({ model: MODEL, input, stream: true }));
    const names = events.map((event) => event.event_type);
    assert.equal(names[0], 'interaction.created');
    assert.equal(names.at(-1), 'interaction.completed');
    assert(names.filter((name) => name === 'step.delta').length > 1, names.join());
    assert.equal((await made.get(`i${mark}`)).status, 'completed');
    assert.equal((await made.cancel(`i${mark}`)).status, 'cancelled');
    const other = marker();
    const blocked = made.create({ model: MODEL, input: `${other} ${checks.INJECTION}` });
    await assert.rejects(blocked, /blocked by a guardrail/);
    assert.equal(await checks.sent(other), undefined, 'the blocked prompt reached the model');
  },

  // Requests are read; answers are on record, whether they are in the operation or in a file.
  async batches(caller) {
    const mark = marker();
    const made = caller.sdk.batches;
    const requests = (text) => [{ contents: [{ role: 'user', parts: [{ text }] }] }];
    await made.create({ model: MODEL, src: requests(mark) });
    assert(await checks.sent(mark), 'the requests did not reach the upstream');
    const other = marker();
    const blocked = made.create({ model: MODEL, src: requests(`${other} ${checks.INJECTION}`) });
    await assert.rejects(blocked, /blocked by a guardrail/);
    assert.equal(await checks.sent(other), undefined, 'the blocked prompt reached the upstream');
    // Its own user, to find what is recorded of it.
    const config = { httpOptions: { headers: { 'x-chaperone-user': mark } } };
    const batch = await made.get({ name: `batches/b${mark}`, config });
    assert.equal(batch.state, 'JOB_STATE_SUCCEEDED');
    assert.equal(batch.dest.inlinedResponses.length, 3);
    const filed = await made.get({ name: `batches/filed${mark}`, config });
    const downloadPath = path.join(await mkdtemp(path.join(tmpdir(), 'answers-')), 'answers.jsonl');
    await caller.sdk.files.download({ file: filed.dest.fileName, downloadPath, config });
    const read = async () => (await readFile(downloadPath, 'utf8').catch(() => '')).trim().split('\n');
    // The SDK does not wait until the file is written.
    await checks.eventually(async () => (await read()).length === 3, 'the file has not three lines');
    await checks.eventually(async () => (await checks.executions(mark)).length === 6, 'not all answers are on record');
  },

  async caches(caller) {
    const mark = marker();
    const made = await caller.sdk.caches.create({ model: MODEL, config: { contents: mark, ttl: '300s' } });
    assert(made.name && (await checks.sent(mark)), JSON.stringify(made));
    const other = marker();
    const contents = `${other} ${checks.INJECTION}`;
    await assert.rejects(caller.sdk.caches.create({ model: MODEL, config: { contents } }), /blocked by a guardrail/);
    assert.equal(await checks.sent(other), undefined, 'the blocked prompt reached the upstream');
  },

  // By its paths in express mode, which take a key.
  async vertex(caller) {
    const httpOptions = { baseUrl: caller.base.url, headers: caller.base.headers, timeout: checks.TIMEOUT_MS };
    const there = new Caller(caller.base);
    there.sdk = new GoogleGenAI({ apiKey: checks.API_KEY, vertexai: true, httpOptions });
    const mark = marker();
    const answer = await there.generate(mark);
    caller.base.checkEcho(answer.text, mark);
    await caller.base.sent(mark);
    const [blocked] = await there.chunks(`${marker()} ${checks.INJECTION}`);
    assert.equal(blocked.promptFeedback.blockReason, 'PROHIBITED_CONTENT');
  },

  async large_body(caller) {
    const prompt = marker() + 'x'.repeat(LARGE_LETTERS);
    caller.base.checkEcho((await caller.generate(prompt)).text, prompt);
  },

  // In one piece and in several; and a guardrail reads what is text.
  async uploads(caller) {
    const config = { mimeType: 'text/plain', displayName: marker() };
    const upload = (text) => caller.sdk.files.upload({ file: new Blob([text], { type: 'text/plain' }), config });
    for (const length of [10, UPLOADED_BYTES]) {
      const file = await upload('a b c d e\n'.repeat(length / 10));
      assert.deepEqual([file.sizeBytes, file.displayName], [String(length), config.displayName]);
    }
    const error = await refusal(ApiError, () => upload(checks.INJECTION));
    assert.equal(error.status, 400);
    assert.match(error.message, /the upload was blocked by a guardrail/);
  },
};

const all = {};
for (const [feature, works] of Object.entries(features)) {
  for (const [place, base] of Object.entries(BASES)) {
    all[[place, feature].filter(Boolean).join('_')] = () => works(new Caller(base));
  }
}
await checks.run(all);
